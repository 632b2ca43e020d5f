import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Code, ConnectError } from '@connectrpc/connect';
import { CommandFailure, EXIT } from './failure.ts';
import { rowCounter } from './export-rows.ts';

/** The manifest's file in the folder of an export. */
export const MANIFEST = 'manifest.json';

/** A file of an export, as its manifest describes it. */
export interface PartEntry {
  file: string;
  rows: number;
  size_bytes: number;
  sha256: string;
}

/** What of a manifest is checked. */
export interface ExportManifest {
  format: string;
  rows: number;
  parts: PartEntry[];
}

/** A file of an export that is not what was written, and why. */
export interface Damage {
  file: string;
  problem: string;
}

/** Reads a manifest; fails in words where it is none. */
export function manifestFrom(value: unknown, where: string): ExportManifest {
  const fail = (why: string) => new CommandFailure(`${where}: ${why}`, EXIT.usage);
  const { manifest_version: version, format, rows, parts } = (value ?? {}) as Record<string, unknown>;
  if (version !== 1) throw fail('is no manifest that this version can read');
  if (typeof format !== 'string' || rowCounter(format) === undefined)
    throw fail(`the format ${String(format)} is unknown`);
  if (!Number.isSafeInteger(rows) || !Array.isArray(parts)) throw fail('rows or parts are missing');
  for (const part of parts as Partial<PartEntry>[]) {
    const isNamed = typeof part.file === 'string' && /^part-\d{5,}\.[a-z]+$/.test(part.file);
    const isCounted = Number.isSafeInteger(part.rows) && Number.isSafeInteger(part.size_bytes);
    if (!isNamed || !isCounted || !/^[0-9a-f]{64}$/.test(String(part.sha256))) throw fail('a part is not described');
  }
  return { format, rows: rows as number, parts: parts as PartEntry[] };
}

/** Compares a part with what its manifest says of it; undefined when it is that. */
export async function damageOf(
  format: string,
  part: PartEntry,
  pieces: AsyncIterable<Uint8Array>,
): Promise<Damage | undefined> {
  const hash = createHash('sha256');
  const counter = rowCounter(format)!;
  let size = 0;
  for await (const piece of pieces) {
    hash.update(piece);
    counter.add(piece);
    size += piece.length;
  }
  const damage = (problem: string): Damage => ({ file: part.file, problem });
  if (size !== part.size_bytes) return damage(`has ${size} bytes instead of ${part.size_bytes}`);
  if (hash.digest('hex') !== part.sha256) return damage('has another content: its sha256 differs');
  try {
    const rows = counter.rows();
    return rows === part.rows ? undefined : damage(`has ${rows} rows instead of ${part.rows}`);
  } catch (error) {
    return damage(`cannot be read: ${(error as Error).message}`);
  }
}

/** The manifest in a folder. */
export async function readManifest(folder: string): Promise<ExportManifest> {
  const path = join(folder, MANIFEST);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw new CommandFailure(`cannot read ${path}: ${(error as Error).message}`, EXIT.notFound);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new CommandFailure(`${path}: is no JSON`, EXIT.usage);
  }
  return manifestFrom(value, path);
}

/** Checks every file of a folder against the manifest in it; calls `onPart` after each. */
export async function verifyFolder(folder: string, onPart?: (done: number) => void): Promise<Damage[]> {
  const manifest = await readManifest(folder);
  return verifyParts(manifest, ({ file }) => createReadStream(join(folder, file)), onPart);
}

/** No file here, or none in the service's object store. */
const isMissing = (error: unknown): boolean =>
  (error as { code?: string }).code === 'ENOENT' || (error instanceof ConnectError && error.code === Code.DataLoss);

/** Checks every part that `open` gives; what is missing is a damage as well. */
export async function verifyParts(
  { format, rows, parts }: ExportManifest,
  open: (part: PartEntry) => AsyncIterable<Uint8Array>,
  onPart?: (done: number) => void,
): Promise<Damage[]> {
  const damages: Damage[] = [];
  for (const [index, part] of parts.entries()) {
    const damage = await damageOf(format, part, open(part)).catch((error: unknown) => {
      if (!isMissing(error)) throw error;
      return { file: part.file, problem: 'is missing' };
    });
    if (damage !== undefined) damages.push(damage);
    onPart?.(index + 1);
  }
  const sum = parts.reduce((total, part) => total + part.rows, 0);
  if (sum !== rows) damages.push({ file: MANIFEST, problem: `says ${rows} rows, its parts say ${sum}` });
  return damages;
}
