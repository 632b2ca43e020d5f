import { fileStore } from './file-store.ts';
import type { ObjectStore } from './object-store.ts';
import { parseS3Url, s3Store } from './s3-store.ts';

/**
 * Opens the store a URL names: `file:///var/lib/mad/objects` is a folder, `s3://bucket/prefix?region=…&endpoint=…` a part
 * of a bucket. Throws for any other scheme, and for an s3: URL that says more than that.
 */
export function openObjectStore(url: string): ObjectStore {
  const location = new URL(url);
  if (location.protocol === 'file:') return fileStore(location);
  if (location.protocol === 's3:') return s3Store(parseS3Url(location));
  throw new Error(`object stores are named by file: or s3: URLs, not ${location.protocol}`);
}
