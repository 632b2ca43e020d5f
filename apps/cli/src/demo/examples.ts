import { fileURLToPath } from 'node:url';

/** The folder of the examples, with a slash at its end. */
export const EXAMPLES = fileURLToPath(new URL('../../../../examples/', import.meta.url));
