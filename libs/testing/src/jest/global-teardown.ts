import { kept } from './running.ts';

/** Once per run, after the last test file. */
export default async function globalTeardown(): Promise<void> {
  await kept()?.stop();
}
