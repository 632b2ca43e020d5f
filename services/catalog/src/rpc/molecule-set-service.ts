import { create } from '@bufbuild/protobuf';
import type { ServiceImpl } from '@connectrpc/connect';
import { uuidv7 } from '@mad/process';
import { CreateMoleculeSetResponseSchema, MoleculeSetService } from '@mad/proto/catalog';
import { notFound, pageOf, requireName, userOf } from '@mad/rpc';
import type { Tx } from '@mad/postgres';
import { audit, auditEvent } from '../audit.ts';
import type { CatalogContext } from '../context.ts';
import type { MoleculeSetRow } from '../db/entities/molecule-set.ts';
import { changeOrganization, readOrganization } from '../organization-scope.ts';
import { MOLECULE_SET_COLUMNS, moleculeSetMessage } from './molecule.ts';
import { isIntegerCursor, isUuidCursor, pageOfRows } from './page.ts';

interface MemberRow {
  item_no: number;
  molecule_id: string;
  canonical_smiles: string;
  name: string;
}

/** A set of the organization, a job's input included. Throws NOT_FOUND. */
async function readSet(tx: Tx, orgId: string, setId: string): Promise<MoleculeSetRow> {
  const [row] = await tx.query<MoleculeSetRow>(
    `SELECT ${MOLECULE_SET_COLUMNS} FROM catalog.molecule_sets WHERE org_id = $1 AND molecule_set_id = $2`,
    [orgId, setId],
  );
  if (!row) throw notFound('molecule set', setId);
  return row;
}

/** Libraries: ordered sets of molecules. */
export function moleculeSetService(context: CatalogContext): ServiceImpl<typeof MoleculeSetService> {
  const { boss, database } = context;
  return {
    async createMoleculeSet(request, ctx) {
      requireName('name', request.name);
      const method = MoleculeSetService.method.createMoleculeSet;
      return changeOrganization(context, ctx, method, request, async (tx, { orgId, userId }) => {
        const [row] = await tx.query<MoleculeSetRow>(
          `INSERT INTO catalog.molecule_sets (org_id, molecule_set_id, name, created_by)
           VALUES ($1, $2, $3, $4) RETURNING ${MOLECULE_SET_COLUMNS}`,
          [orgId, uuidv7(), request.name, userId],
        );
        const fact = {
          action: 'molecule_sets.create',
          entityType: 'molecule_set',
          entityId: row!.molecule_set_id,
          requestId: request.requestId,
        };
        await audit(tx, boss, auditEvent(ctx, orgId, fact));
        return create(CreateMoleculeSetResponseSchema, { moleculeSet: moleculeSetMessage(row!) });
      });
    },

    async sealMoleculeSet({ moleculeSetId }, ctx) {
      const { orgId } = userOf(ctx);
      await context.organizations.require(orgId, 'writing');
      return database.inOrg(
        orgId,
        async (tx) => {
          const [sealed] = await tx.query<MoleculeSetRow>(
            `UPDATE catalog.molecule_sets SET sealed_at = now()
             WHERE org_id = $1 AND molecule_set_id = $2 AND sealed_at IS NULL RETURNING ${MOLECULE_SET_COLUMNS}`,
            [orgId, moleculeSetId],
          );
          const row = sealed ?? (await readSet(tx, orgId, moleculeSetId));
          if (sealed) {
            const fact = { action: 'molecule_sets.seal', entityType: 'molecule_set', entityId: moleculeSetId };
            await audit(tx, boss, auditEvent(ctx, orgId, { ...fact, metadata: { size: sealed.size } }));
          }
          return { moleculeSet: moleculeSetMessage(row) };
        },
        { signal: ctx.signal },
      );
    },

    async getMoleculeSet({ moleculeSetId }, ctx) {
      return readOrganization(context, ctx, async (tx, orgId) => {
        return { moleculeSet: moleculeSetMessage(await readSet(tx, orgId, moleculeSetId)) };
      });
    },

    async listMoleculeSets(request, ctx) {
      return readOrganization(context, ctx, async (tx, orgId) => {
        const query = { list: 'molecule sets', orgId };
        const page = pageOf(request, { query, isCursor: isUuidCursor });
        const rows = await tx.query<MoleculeSetRow>(
          `SELECT ${MOLECULE_SET_COLUMNS} FROM catalog.molecule_sets
           WHERE org_id = $1 AND name <> '' AND ($2::uuid IS NULL OR molecule_set_id < $2::uuid)
           ORDER BY molecule_set_id DESC LIMIT $3`,
          [orgId, page.cursor ?? null, page.size + 1],
        );
        const { shown, nextPageToken } = pageOfRows(rows, page, query, (row) => row.molecule_set_id);
        return { moleculeSets: shown.map(moleculeSetMessage), nextPageToken };
      });
    },

    async listMoleculeSetMembers(request, ctx) {
      return readOrganization(context, ctx, async (tx, orgId) => {
        const { moleculeSetId } = request;
        await readSet(tx, orgId, moleculeSetId);
        const query = { list: 'molecule set members', orgId, moleculeSetId };
        const page = pageOf(request, { query, isCursor: isIntegerCursor });
        const rows = await tx.query<MemberRow>(
          `SELECT m.item_no, m.molecule_id, c.canonical_smiles, c.name FROM catalog.molecule_set_members m
           JOIN catalog.molecules c ON c.org_id = m.org_id AND c.molecule_id = m.molecule_id
           WHERE m.org_id = $1 AND m.molecule_set_id = $2 AND m.item_no > $3 ORDER BY m.item_no LIMIT $4`,
          [orgId, moleculeSetId, page.cursor ?? 0, page.size + 1],
        );
        const { shown, nextPageToken } = pageOfRows(rows, page, query, (row) => row.item_no);
        const members = shown.map((row) => ({
          itemNo: row.item_no,
          moleculeId: row.molecule_id,
          canonicalSmiles: row.canonical_smiles,
          name: row.name,
        }));
        return { members, nextPageToken };
      });
    },
  };
}
