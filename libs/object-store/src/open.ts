import { fileStore } from './file-store.ts';
import type { ObjectStore } from './object-store.ts';

/** Opens the store a URL names: `file:///var/lib/mad/objects` is a folder. Throws for any other scheme. */
export function openObjectStore(url: string): ObjectStore {
  const location = new URL(url);
  if (location.protocol === 'file:') return fileStore(location);
  throw new Error(`object stores are named by file: URLs, not ${location.protocol}`);
}
