import { isRejected, type Normalized } from '@mad/chemistry';
import { Code } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { notFound, rpcError } from '@mad/rpc';
import type { CatalogContext } from './context.ts';
import {
  isRefused,
  newSynonyms,
  readRow,
  refuse,
  type GivenRow,
  type LibraryRow,
  type RefusedRow,
} from './domain/library-rows.ts';
import { chargeQuota } from './usage.ts';

/** As many as the column takes. */
const MAX_SYNONYMS = 100;

/** A row that RDKit accepted. */
export interface AcceptedRow extends LibraryRow {
  molecule: Normalized;
}

/** A library as RDKit judged it, both parts in the order of the lines. */
export interface JudgedRows {
  accepted: AcceptedRow[];
  refused: RefusedRow[];
}

/** Has RDKit judge rows; the first is line `firstLine`. Not to be called inside a transaction: it may take seconds. */
export async function judgeRows(
  context: CatalogContext,
  rows: readonly GivenRow[],
  firstLine: number,
  signal?: AbortSignal,
): Promise<JudgedRows> {
  const read = rows.map((row, index) => readRow(row, firstLine + index));
  const candidates = read.filter((row): row is LibraryRow => !isRefused(row));
  const outcomes = await context.chemistry.normalize(candidates, { signal });
  const accepted: AcceptedRow[] = [];
  const refused = read.filter(isRefused);
  for (const [index, outcome] of outcomes.entries()) {
    const row = candidates[index]!;
    if (isRejected(outcome)) refused.push(refuse(row.line, row.smiles, outcome.reason, outcome.message));
    else accepted.push({ ...row, molecule: outcome });
  }
  return { accepted, refused: refused.sort((a, b) => a.line - b.line) };
}

/** Where molecules go and on whose account. */
export interface Registration {
  orgId: string;
  userId: string;
  /** What made the canonical forms, e.g. `rdkit 2026.09.1`. */
  normalizer: string;
  maxMolecules: number;
  /** A set, not sealed, that gets the molecules in the order of the lines; empty for none. */
  moleculeSetId: string;
}

/** A row that is registered now. */
export interface RegisteredRow {
  line: number;
  moleculeId: string;
  canonicalSmiles: string;
  /** True when this registration made the molecule. */
  created: boolean;
}

/**
 * Keeps the molecules of accepted rows: a known one keeps its id and gains the name as a synonym. All or nothing. Throws
 * NOT_FOUND or FAILED_PRECONDITION for the set, RESOURCE_EXHAUSTED with QUOTA_EXCEEDED for too many molecules.
 */
export async function registerRows(tx: Tx, to: Registration, rows: readonly AcceptedRow[]): Promise<RegisteredRow[]> {
  const setSize = to.moleculeSetId === '' ? undefined : await lockOpenSet(tx, to);
  const molecules = distinct(rows);
  const created = await insertMolecules(tx, to, molecules);
  const known = await readKnown(tx, to.orgId, [...molecules.keys()]);
  await addSynonyms(tx, to.orgId, molecules, known);
  if (created.size > 0) await chargeQuota(tx, to.orgId, 'molecules', created.size, to.maxMolecules);

  const seen = new Set<string>();
  const registered = rows.map(({ line, molecule: { canonicalSmiles } }) => {
    const isFirst = !seen.has(canonicalSmiles);
    seen.add(canonicalSmiles);
    const moleculeId = known.get(canonicalSmiles)!.molecule_id;
    return { line, moleculeId, canonicalSmiles, created: isFirst && created.has(canonicalSmiles) };
  });
  if (setSize !== undefined) await addMembers(tx, to, setSize, registered);
  return registered;
}

/** One molecule of a request with every name it was given. */
interface DistinctMolecule {
  molecule: Normalized;
  smiles: string;
  names: string[];
}

/** Sorted by canonical form, so that two registrations take their locks in the same order. */
function distinct(rows: readonly AcceptedRow[]): Map<string, DistinctMolecule> {
  const molecules = new Map<string, DistinctMolecule>();
  const sorted = rows.toSorted((a, b) => (a.molecule.canonicalSmiles < b.molecule.canonicalSmiles ? -1 : 1));
  for (const { molecule, smiles, name } of sorted) {
    const { canonicalSmiles } = molecule;
    let one = molecules.get(canonicalSmiles);
    if (!one) molecules.set(canonicalSmiles, (one = { molecule, smiles, names: [] }));
    if (name !== '') one.names.push(name);
  }
  return molecules;
}

async function lockOpenSet(tx: Tx, { orgId, moleculeSetId }: Registration): Promise<number> {
  const [set] = await tx.query<{ size: number; sealed_at: Date | null }>(
    'SELECT size, sealed_at FROM catalog.molecule_sets WHERE org_id = $1 AND molecule_set_id = $2 FOR UPDATE',
    [orgId, moleculeSetId],
  );
  if (!set) throw notFound('molecule set', moleculeSetId);
  if (set.sealed_at === null) return set.size;
  const metadata = { molecule_set_id: moleculeSetId };
  throw rpcError(Code.FailedPrecondition, 'IMMUTABLE', 'a sealed molecule set does not change', metadata);
}

/** Returns the canonical forms that were not known before. */
async function insertMolecules(
  tx: Tx,
  { orgId, userId, normalizer }: Registration,
  molecules: ReadonlyMap<string, DistinctMolecule>,
): Promise<Set<string>> {
  const all = [...molecules.values()];
  if (all.length === 0) return new Set();
  const rows = await tx.query<{ canonical_smiles: string }>(
    `INSERT INTO catalog.molecules (org_id, created_by, normalizer, molecule_id, name, smiles, canonical_smiles, inchikey,
       formula, molecular_weight, properties, fingerprint)
     SELECT $1, $2, $3, m.molecule_id, m.name, m.smiles, m.canonical_smiles, m.inchikey, m.formula, m.molecular_weight,
       m.properties::jsonb, m.fingerprint
     FROM unnest($4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::numeric[], $11::text[], $12::bytea[])
       AS m (molecule_id, name, smiles, canonical_smiles, inchikey, formula, molecular_weight, properties, fingerprint)
     ON CONFLICT (org_id, canonical_smiles) DO NOTHING RETURNING canonical_smiles`,
    [
      orgId,
      userId,
      normalizer,
      all.map(() => uuidv7()),
      all.map(({ names, molecule }) => names[0] ?? molecule.inchikey ?? molecule.canonicalSmiles.slice(0, 255)),
      all.map(({ smiles }) => smiles),
      all.map(({ molecule }) => molecule.canonicalSmiles),
      all.map(({ molecule }) => molecule.inchikey),
      all.map(({ molecule }) => molecule.formula),
      all.map(({ molecule }) => molecule.molecularWeight.toFixed(4)),
      all.map(({ molecule }) => JSON.stringify(molecule.properties)),
      all.map(({ molecule }) => Buffer.from(molecule.fingerprint)),
    ],
  );
  return new Set(rows.map((row) => row.canonical_smiles));
}

interface KnownMolecule {
  molecule_id: string;
  canonical_smiles: string;
  name: string;
  synonyms: string[];
}

/** Reads molecules by canonical form, in its order; locked where their names are about to change. */
async function readKnown(
  tx: Tx,
  orgId: string,
  canonicalSmiles: string[],
  lock = '',
): Promise<Map<string, KnownMolecule>> {
  const rows = await tx.query<KnownMolecule>(
    `SELECT molecule_id, canonical_smiles, name, synonyms FROM catalog.molecules
     WHERE org_id = $1 AND canonical_smiles = ANY($2::text[]) ORDER BY canonical_smiles COLLATE "C" ${lock}`,
    [orgId, canonicalSmiles],
  );
  return new Map(rows.map((row) => [row.canonical_smiles, row]));
}

async function addSynonyms(
  tx: Tx,
  orgId: string,
  molecules: ReadonlyMap<string, DistinctMolecule>,
  known: ReadonlyMap<string, KnownMolecule>,
): Promise<void> {
  const gaining = [...known.values()]
    .filter((row) => newSynonyms(row, molecules.get(row.canonical_smiles)!.names, MAX_SYNONYMS).length > 0)
    .map((row) => row.canonical_smiles);
  if (gaining.length === 0) return;
  const locked = [...(await readKnown(tx, orgId, gaining, 'FOR NO KEY UPDATE')).values()];
  const synonyms = locked.map((row) => [
    ...row.synonyms,
    ...newSynonyms(row, molecules.get(row.canonical_smiles)!.names, MAX_SYNONYMS),
  ]);
  await tx.execute(
    `UPDATE catalog.molecules m SET updated_at = now(),
       synonyms = ARRAY(SELECT s.value FROM jsonb_array_elements_text(n.synonyms::jsonb) WITH ORDINALITY AS s (value, place) ORDER BY s.place)
     FROM unnest($2::uuid[], $3::text[]) AS n (molecule_id, synonyms)
     WHERE m.org_id = $1 AND m.molecule_id = n.molecule_id`,
    [orgId, locked.map((row) => row.molecule_id), synonyms.map((names) => JSON.stringify(names))],
  );
}

async function addMembers(tx: Tx, to: Registration, size: number, rows: readonly RegisteredRow[]): Promise<void> {
  if (rows.length === 0) return;
  await tx.execute(
    `INSERT INTO catalog.molecule_set_members (org_id, molecule_set_id, item_no, molecule_id)
     SELECT $1, $2, $3 + m.place, m.molecule_id FROM unnest($4::uuid[]) WITH ORDINALITY AS m (molecule_id, place)`,
    [to.orgId, to.moleculeSetId, size, rows.map(({ moleculeId }) => moleculeId)],
  );
  await tx.execute('UPDATE catalog.molecule_sets SET size = size + $3 WHERE org_id = $1 AND molecule_set_id = $2', [
    to.orgId,
    to.moleculeSetId,
    rows.length,
  ]);
}
