import { create } from '@bufbuild/protobuf';
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { MoleculeService, RegisterMoleculesResponseSchema, UpdateMoleculeResponseSchema } from '@mad/proto/catalog';
import { invalid, notFound, pageOf, requireName, requireStorable, userOf } from '@mad/rpc';
import { audit, auditEvent } from '../audit.ts';
import type { CatalogContext } from '../context.ts';
import type { MoleculeRow } from '../db/entities/molecule.ts';
import type { RefusedRow } from '../domain/library-rows.ts';
import { changeOrganization, readOrganization } from '../organization-scope.ts';
import { judgeRows, registerRows, type JudgedRows, type RegisteredRow } from '../registration.ts';
import { MOLECULE_COLUMNS, moleculeMessage } from './molecule.ts';
import { isUuidCursor, pageOfRows } from './page.ts';

/** Batches of an import that RDKit works on while an earlier one is being stored. */
const READ_AHEAD = 2;
const MAX_REPORTED_REJECTIONS = 1_000;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

function requireSetId(moleculeSetId: string): void {
  if (moleculeSetId !== '' && !UUID.test(moleculeSetId)) throw invalid('molecule_set_id', 'must be a UUID');
}

/** Which of "name" and "description" an update changes. Throws INVALID_ARGUMENT for an empty or a foreign mask. */
function maskedFields(paths: readonly string[]): ReadonlySet<string> {
  const unknown = paths.find((path) => path !== 'name' && path !== 'description');
  if (unknown !== undefined) throw invalid('update_mask', `${JSON.stringify(unknown)} cannot be changed`);
  if (paths.length === 0) throw invalid('update_mask', 'names nothing to change');
  return new Set(paths);
}

/** The organization's molecules. */
export function moleculeService(context: CatalogContext): ServiceImpl<typeof MoleculeService> {
  const { boss, database, organizations } = context;
  const normalizer = `rdkit ${context.rdkitVersion}`;

  /** Stores judged rows and records that, in the transaction given. */
  async function store(
    tx: Tx,
    ctx: HandlerContext,
    judged: JudgedRows,
    options: { moleculeSetId: string; maxMolecules: number; requestId: string },
  ): Promise<RegisteredRow[]> {
    const { orgId, userId } = userOf(ctx);
    const { moleculeSetId, maxMolecules, requestId } = options;
    const registered = await registerRows(
      tx,
      { orgId, userId, normalizer, maxMolecules, moleculeSetId },
      judged.accepted,
    );
    if (registered.length > 0) {
      const created = registered.filter((row) => row.created).length;
      const metadata = { registered: registered.length, created, rejected: judged.refused.length };
      const entity = { entityType: moleculeSetId ? 'molecule_set' : 'molecule', entityId: moleculeSetId };
      await audit(tx, boss, auditEvent(ctx, orgId, { action: 'molecules.create', ...entity, requestId, metadata }));
    }
    return registered;
  }

  return {
    async registerMolecules(request, ctx) {
      const { rows, moleculeSetId, requestId } = request;
      requireSetId(moleculeSetId);
      await organizations.require(userOf(ctx).orgId, 'writing');
      const judged = await judgeRows(context, rows, 1, ctx.signal);
      const method = MoleculeService.method.registerMolecules;
      return changeOrganization(context, ctx, method, request, async (tx, { organization }) => {
        const { maxMolecules } = organization.quotas;
        const registered = await store(tx, ctx, judged, { moleculeSetId, maxMolecules, requestId });
        return create(RegisterMoleculesResponseSchema, { registered, rejected: judged.refused });
      });
    },

    async importMolecules(requests, ctx) {
      const { orgId } = userOf(ctx);
      const totals = { registered: 0n, created: 0n, rejected: 0n, rejections: [] as RefusedRow[] };
      let moleculeSetId: string | undefined;
      const finish = async (judging: Promise<JudgedRows>): Promise<void> => {
        const judged = await judging;
        const { quotas } = await organizations.require(orgId, 'writing');
        const options = { moleculeSetId: moleculeSetId!, maxMolecules: quotas.maxMolecules, requestId: '' };
        const stored = await database.inOrg(orgId, (tx) => store(tx, ctx, judged, options), { signal: ctx.signal });
        totals.registered += BigInt(stored.length);
        totals.created += BigInt(stored.filter((row) => row.created).length);
        totals.rejected += BigInt(judged.refused.length);
        totals.rejections.push(...judged.refused.slice(0, MAX_REPORTED_REJECTIONS - totals.rejections.length));
      };
      const judging: Promise<JudgedRows>[] = [];
      let line = 1;
      for await (const request of requests) {
        if (moleculeSetId === undefined) {
          requireSetId(request.moleculeSetId);
          await organizations.require(orgId, 'writing');
          moleculeSetId = request.moleculeSetId;
        }
        const next = judgeRows(context, request.rows, line, ctx.signal);
        // It fails where it is awaited; until then nobody must think it unhandled.
        next.catch(() => undefined);
        judging.push(next);
        line += request.rows.length;
        if (judging.length > READ_AHEAD) await finish(judging.shift()!);
      }
      for (const last of judging) await finish(last);
      return totals;
    },

    async getMolecule({ moleculeId }, ctx) {
      return readOrganization(context, ctx, async (tx, orgId) => {
        const [row] = await tx.query<MoleculeRow>(
          `SELECT ${MOLECULE_COLUMNS} FROM catalog.molecules WHERE org_id = $1 AND molecule_id = $2`,
          [orgId, moleculeId],
        );
        if (!row) throw notFound('molecule', moleculeId);
        return { molecule: moleculeMessage(row) };
      });
    },

    async listMolecules(request, ctx) {
      const { query: words, inchikey } = request;
      requireStorable('query', words);
      requireStorable('inchikey', inchikey);
      return readOrganization(context, ctx, async (tx, orgId) => {
        const query = { list: 'molecules', orgId, words, inchikey };
        const page = pageOf(request, { query, isCursor: isUuidCursor });
        const filters = [
          ...(words === '' ? [] : [`search @@ plainto_tsquery('simple', $4)`]),
          ...(inchikey === '' ? [] : [`inchikey = $${words === '' ? 4 : 5}`]),
        ].map((condition) => `AND ${condition}`);
        const rows = await tx.query<MoleculeRow>(
          `SELECT ${MOLECULE_COLUMNS} FROM catalog.molecules
           WHERE org_id = $1 AND ($2::uuid IS NULL OR molecule_id < $2::uuid) ${filters.join(' ')}
           ORDER BY molecule_id DESC LIMIT $3`,
          [orgId, page.cursor ?? null, page.size + 1, ...[words, inchikey].filter((text) => text !== '')],
        );
        const { shown, nextPageToken } = pageOfRows(rows, page, query, (row) => row.molecule_id);
        return { molecules: shown.map(moleculeMessage), nextPageToken };
      });
    },

    async updateMolecule(request, ctx) {
      const { moleculeId, name, description, requestId } = request;
      const fields = maskedFields(request.updateMask?.paths ?? []);
      if (fields.has('name')) requireName('name', name);
      if (fields.has('description')) requireStorable('description', description);
      const method = MoleculeService.method.updateMolecule;
      return changeOrganization(context, ctx, method, request, async (tx, { orgId }) => {
        const [row] = await tx.query<MoleculeRow>(
          `UPDATE catalog.molecules SET name = coalesce($3, name), description = coalesce($4, description), updated_at = now()
           WHERE org_id = $1 AND molecule_id = $2 RETURNING ${MOLECULE_COLUMNS}`,
          [orgId, moleculeId, fields.has('name') ? name : null, fields.has('description') ? description : null],
        );
        if (!row) throw notFound('molecule', moleculeId);
        const fact = { action: 'molecules.update', entityType: 'molecule', entityId: moleculeId, requestId };
        await audit(tx, boss, auditEvent(ctx, orgId, { ...fact, metadata: { fields: [...fields] } }));
        return create(UpdateMoleculeResponseSchema, { molecule: moleculeMessage(row) });
      });
    },
  };
}
