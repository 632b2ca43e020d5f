import type { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import type * as Sdk from '@aws-sdk/client-s3';
import { checkKey, ObjectNotFoundError, type ObjectStore } from './object-store.ts';

const MIB = 1024 * 1024;
/** S3 takes 10,000 parts at most: objects up to 156 GiB. */
const PART_BYTES = 16 * MIB;
/** What one writer holds in memory is this many parts, and the one that is being filled. */
const PARTS_AT_ONCE = 2;

interface Opened {
  s3: typeof Sdk;
  client: Sdk.S3Client;
}

/** Where the objects are. */
export interface S3Place {
  bucket: string;
  /** Before every key; empty or like `mad/production`. */
  prefix: string;
  /** Of a server that is not Amazon's, e.g. `http://127.0.0.1:9000`; buckets are then addressed by path. */
  endpoint?: string;
  /** Where absent, the one AWS's own settings name (`AWS_REGION`). */
  region?: string;
}

/**
 * Reads `s3://bucket/prefix?region=…&endpoint=…`. Throws an Error that does not repeat the URL for one that says anything
 * else: above all for one with credentials.
 */
export function parseS3Url({ hostname: bucket, pathname, searchParams, username, password, port }: URL): S3Place {
  if (username !== '' || password !== '') {
    throw new Error('an s3: URL holds no credentials: they are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY');
  }
  if (bucket === '' || port !== '') throw new Error('an s3: URL names a bucket: s3://bucket/prefix');
  for (const name of searchParams.keys()) {
    if (name !== 'region' && name !== 'endpoint') throw new Error(`an s3: URL has no parameter ${name.slice(0, 50)}`);
  }
  const prefix = pathname.replace(/^\/|\/$/g, '');
  if (prefix !== '') checkKey(prefix);
  const endpoint = searchParams.get('endpoint') ?? undefined;
  if (endpoint !== undefined && !/^https?:$/.test(URL.parse(endpoint)?.protocol ?? '')) {
    throw new Error('endpoint of an s3: URL must be an http: or https: URL');
  }
  const region = searchParams.get('region') ?? undefined;
  return {
    bucket,
    prefix,
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(region === undefined ? {} : { region }),
  };
}

/**
 * Objects in a bucket of Amazon S3 or of a server that speaks like it. Credentials come from where AWS's own tools take
 * them (`AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, a profile, the machine's role).
 *
 * Writes are conditional (`If-None-Match: *`): of several writers of one key at the same time the first wins. A server that
 * does not know conditional writes ignores that or says 501: there the last of such writers wins, each of whom has put a
 * whole object.
 */
export function s3Store({ bucket, prefix, endpoint, region }: S3Place): ObjectStore {
  const before = prefix === '' ? '' : `${prefix}/`;
  /** The SDK is a third of a second of loading: only those pay who keep objects in S3. */
  let opening: Promise<Opened> | undefined;
  const open = async (): Promise<Opened> => {
    const s3 = await import('@aws-sdk/client-s3');
    // Checksums beyond what S3 requires are unknown to older servers of others.
    const others = { endpoint, region: 'us-east-1', forcePathStyle: true } as const;
    const client = new s3.S3Client({
      ...(endpoint === undefined ? {} : { ...others, requestChecksumCalculation: 'WHEN_REQUIRED' as const }),
      ...(region === undefined ? {} : { region }),
    });
    return { s3, client };
  };
  const sdk = (): Promise<Opened> => (opening ??= open());
  const at = (key: string): { Bucket: string; Key: string } => ({ Bucket: bucket, Key: before + checkKey(key) });

  const exists = async (key: string): Promise<boolean> => {
    const place = at(key);
    const { s3, client } = await sdk();
    try {
      await client.send(new s3.HeadObjectCommand(place));
      return true;
    } catch (error) {
      if (statusOf(error) === 404) return false;
      throw error;
    }
  };

  const read = async (key: string, range?: string): Promise<Readable> => {
    const place = at(key);
    const { s3, client } = await sdk();
    try {
      const { Body: body } = await client.send(new s3.GetObjectCommand({ ...place, Range: range }));
      return body as Readable;
    } catch (error) {
      if (error instanceof s3.NoSuchKey) throw new ObjectNotFoundError(key, { cause: error });
      throw error;
    }
  };

  /** True when `write` did, false when another was first. */
  const first = async (write: (condition: { IfNoneMatch?: string }) => Promise<unknown>): Promise<boolean> => {
    try {
      await write({ IfNoneMatch: '*' });
      return true;
    } catch (error) {
      // 409: the other one is just writing.
      if (statusOf(error) === 412 || statusOf(error) === 409) return false;
      throw error;
    }
  };

  async function* pages(folder: string, delimiter?: string): AsyncGenerator<string[]> {
    const { s3, client } = await sdk();
    const request = { Bucket: bucket, Prefix: `${before}${folder}/`, Delimiter: delimiter };
    let token: string | undefined;
    do {
      const page: Sdk.ListObjectsV2CommandOutput = await client.send(
        new s3.ListObjectsV2Command({ ...request, ContinuationToken: token }),
      );
      yield (page.Contents ?? []).map(({ Key: key }) => key!.slice(before.length));
      token = page.NextContinuationToken;
    } while (token !== undefined);
  }

  return {
    exists,
    async putIfAbsent(key, content) {
      if (await exists(key)) return false;
      const { s3, client } = await sdk();
      const put = (condition: object): Promise<unknown> =>
        client.send(new s3.PutObjectCommand({ ...at(key), Body: content, ...condition }));
      return first((condition) =>
        put(condition).catch((error: unknown) => {
          if (statusOf(error) === 501) return put({});
          throw error;
        }),
      );
    },
    async putStreamIfAbsent(key, content) {
      // Its own error, also from before anybody reads it, and not what giving up the upload met with.
      let broken: Error | undefined;
      content.once('error', (error) => (broken = error));
      if (await exists(key)) {
        content.destroy();
        return false;
      }
      const { client } = await sdk();
      const { Upload } = await import('@aws-sdk/lib-storage');
      const options = { client, partSize: PART_BYTES, queueSize: PARTS_AT_ONCE };
      try {
        return await first((condition) =>
          new Upload({ ...options, params: { ...at(key), Body: content, ...condition } }).done(),
        );
      } catch (error) {
        throw broken ?? error;
      } finally {
        content.destroy();
      }
    },
    async get(key) {
      return buffer(await read(key));
    },
    async getRange(key, offset, length) {
      if (length === 0) {
        if (await exists(key)) return Buffer.alloc(0);
        throw new ObjectNotFoundError(key);
      }
      try {
        return await buffer(await read(key, `bytes=${offset}-${offset + length - 1}`));
      } catch (error) {
        // The content ends before.
        if (statusOf(error) === 416) return Buffer.alloc(0);
        throw error;
      }
    },
    stream: (key) => read(key),
    async list(folder) {
      const keys: string[] = [];
      for await (const page of pages(checkKey(folder), '/')) keys.push(...page);
      return keys.sort();
    },
    async *walk(folder) {
      for await (const page of pages(checkKey(folder))) yield* page;
    },
    async delete(key) {
      const place = at(key);
      const { s3, client } = await sdk();
      await client.send(new s3.DeleteObjectCommand(place));
      // Parts that a writer who died had sent are stored, and paid for, until somebody gives them up.
      const begun = await client
        .send(new s3.ListMultipartUploadsCommand({ Bucket: bucket, Prefix: place.Key }))
        .catch((error: unknown) => {
          if (statusOf(error) === 501) return undefined;
          throw error;
        });
      for (const { Key, UploadId } of begun?.Uploads ?? []) {
        if (Key === place.Key) await client.send(new s3.AbortMultipartUploadCommand({ ...place, UploadId }));
      }
    },
  };
}

/** The HTTP status the server refused a request with. */
function statusOf(error: unknown): number | undefined {
  return (error as { $metadata?: { httpStatusCode?: number } } | undefined)?.$metadata?.httpStatusCode;
}
