import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import type { Command } from 'commander';
import { uuidv7, type Env } from '@mad/process';
import {
  MoleculeSchema,
  MoleculeService,
  MoleculeSetSchema,
  MoleculeSetService,
  RejectedRowSchema,
  type Molecule,
  type MoleculeSet,
  type RejectedRow,
} from '@mad/proto/catalog';
import { action } from '../command.ts';
import { CommandFailure, EXIT } from '../failure.ts';
import { jsonOf, table } from '../output.ts';
import { allPages } from '../pages.ts';
import { progressBar } from '../progress.ts';
import { asMember, type Signed } from '../session.ts';

/** Rows per call: large enough to keep the chemistry threads busy, small enough to show progress. */
const BATCH_ROWS = 250;

/** A row of a library file. */
export interface LibraryRow {
  smiles: string;
  name: string;
}

/** What became of a library's rows; rejected lines are the file's own. */
export interface Registration {
  registered: number;
  created: number;
  rejected: RejectedRow[];
}

/** molecule register, list, show, sets. */
export function moleculeCommands(mad: Command, env: Env): void {
  const molecule = mad.command('molecule').description("the organization's molecules");
  molecule
    .command('register <file>')
    .description('register a SMILES file (one "SMILES name" a line; - for stdin); refused rows are listed')
    .option('--set <name>', 'also make a library of them, sealed, for jobs to run over')
    .action(
      action<{ set?: string }>(env, async ({ settings, output, options }, file) => {
        const signed = await asMember(settings);
        const rows = await readLibrary(file);
        const set = options.set === undefined ? undefined : await createSet(signed, options.set);
        const bar = progressBar(output, 'registering', rows.length);
        const done = await registerLibrary(signed, rows, set?.moleculeSetId, (count) => bar.update(count));
        bar.stop();
        const sealed = set && (await sealSet(signed, set.moleculeSetId));
        const rejected = done.rejected.map((row) => [row.line, row.reason, row.smiles.slice(0, 40), row.message]);
        const lines = [`${done.registered} registered (${done.created} new), ${done.rejected.length} rejected`];
        if (rejected.length > 0) lines.push(table(['line', 'reason', 'SMILES', 'why'], rejected));
        if (sealed) lines.push(`library ${sealed.name} ${sealed.moleculeSetId}: ${sealed.size} molecules`);
        output.answer(
          {
            registered: done.registered,
            created: done.created,
            rejected: done.rejected.map((row) => jsonOf(RejectedRowSchema, row)),
            molecule_set: sealed ? jsonOf(MoleculeSetSchema, sealed) : null,
          },
          lines.join('\n'),
        );
      }),
    );
  molecule
    .command('list')
    .description('molecules, newest first')
    .option('--query <words>', 'only those whose name or description has these words', '')
    .option('--limit <n>', 'at most this many', Number, 50)
    .action(
      action<{ query: string; limit: number }>(env, async ({ settings, output, options }) => {
        const { api, orgId } = await asMember(settings);
        const found = await allPages(
          (pageToken) => api.client(MoleculeService).listMolecules({ orgId, query: options.query, pageToken }),
          (page) => page.molecules,
          options.limit,
        );
        const rows = found.map((one) => [
          one.moleculeId,
          one.name,
          one.formula,
          Number(one.molecularWeight.toFixed(3)),
          one.canonicalSmiles,
        ]);
        output.answer(
          found.map((one) => jsonOf(MoleculeSchema, one)),
          table(['molecule', 'name', 'formula', 'g/mol', 'canonical SMILES'], rows),
        );
      }),
    );
  molecule
    .command('show <molecule>')
    .description('one molecule with its properties')
    .action(
      action(env, async ({ settings, output }, moleculeId) => {
        const { api, orgId } = await asMember(settings);
        const { molecule: found } = await api.client(MoleculeService).getMolecule({ orgId, moleculeId: moleculeId });
        output.answer(jsonOf(MoleculeSchema, found), described(found!));
      }),
    );
  molecule
    .command('sets')
    .description('libraries, newest first')
    .action(
      action(env, async ({ settings, output }) => {
        const { api, orgId } = await asMember(settings);
        const sets = await allPages(
          (pageToken) => api.client(MoleculeSetService).listMoleculeSets({ orgId, pageToken }),
          (page) => page.moleculeSets,
        );
        const rows = sets.map((one) => [one.moleculeSetId, one.name, one.size, one.sealed ? 'sealed' : 'open']);
        output.answer(
          sets.map((one) => jsonOf(MoleculeSetSchema, one)),
          table(['set', 'name', 'size', 'state'], rows),
        );
      }),
    );
}

function described(molecule: Molecule): string {
  const properties = Object.entries(molecule.properties ?? {}).map(([name, value]) => [name, JSON.stringify(value)]);
  return [
    `${molecule.name} ${molecule.moleculeId}`,
    ...(molecule.synonyms.length > 0 ? [`also ${molecule.synonyms.join(', ')}`] : []),
    `${molecule.canonicalSmiles}  ${molecule.formula}  ${molecule.molecularWeight} g/mol  ${molecule.inchikey}`,
    table(['property', 'value'], properties),
  ].join('\n');
}

/** Reads a SMILES file: the first token is the SMILES, the rest of the line the name; empty lines and # lines are passed over. */
export async function readLibrary(file: string): Promise<LibraryRow[]> {
  const rows: LibraryRow[] = [];
  const input = file === '-' ? process.stdin : createReadStream(file, 'utf8');
  try {
    for await (const line of createInterface({ input, crlfDelay: Infinity })) {
      if (line.trim() === '' || line.startsWith('#')) continue;
      const [smiles = '', ...name] = line.split(/\s+/);
      rows.push({ smiles, name: name.join(' ').trim() });
    }
  } catch (error) {
    throw new CommandFailure(`cannot read ${file}: ${(error as Error).message}`, EXIT.usage);
  }
  if (rows.length === 0) throw new CommandFailure(`${file} has no rows`, EXIT.usage);
  return rows;
}

/** Registers rows in batches, in order, optionally into a set. */
export async function registerLibrary(
  { api, orgId }: Signed,
  rows: LibraryRow[],
  moleculeSetId: string | undefined,
  onProgress: (rowsDone: number) => void,
): Promise<Registration> {
  const total: Registration = { registered: 0, created: 0, rejected: [] };
  for (let start = 0; start < rows.length; start += BATCH_ROWS) {
    const batch = rows.slice(start, start + BATCH_ROWS);
    const request = { orgId, requestId: uuidv7(), rows: batch, moleculeSetId: moleculeSetId ?? '' };
    const answer = await api.client(MoleculeService).registerMolecules(request);
    total.registered += answer.registered.length;
    total.created += answer.registered.filter((row) => row.created).length;
    total.rejected.push(...answer.rejected.map((row) => ({ ...row, line: row.line + start })));
    onProgress(start + batch.length);
  }
  return total;
}

/** Makes an empty library. */
export async function createSet({ api, orgId }: Signed, name: string): Promise<MoleculeSet> {
  return (await api.client(MoleculeSetService).createMoleculeSet({ orgId, requestId: uuidv7(), name })).moleculeSet!;
}

/** Seals a library, so that jobs may run over it. */
export async function sealSet({ api, orgId }: Signed, moleculeSetId: string): Promise<MoleculeSet> {
  return (await api.client(MoleculeSetService).sealMoleculeSet({ orgId, moleculeSetId })).moleculeSet!;
}
