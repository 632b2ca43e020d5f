import { Readable } from 'node:stream';
import { openObjectStore } from '../src/open.ts';

// Puts an object in a process that can be killed: url, key, bytes, and after how many of them it gets stuck.

const MIB = 1024 * 1024;
const [url = '', key = '', size = '', stuckAfter = ''] = process.argv.slice(2);
const store = openObjectStore(url);

async function* pieces(): AsyncGenerator<Buffer> {
  for (let sent = 0; sent < Number(stuckAfter); sent += MIB) yield Buffer.alloc(MIB, 7);
  setInterval(() => undefined, 1000);
  await new Promise(() => undefined);
}

if (stuckAfter === '') await store.putIfAbsent(key, Buffer.alloc(Number(size), 7));
else await store.putStreamIfAbsent(key, Readable.from(pieces()));
