import { Code, ConnectError } from '@connectrpc/connect';
import { accessInterceptor } from '@mad/auth';
import { defineMigration, type MigrationClass } from '@mad/postgres';
import { createLogger } from '@mad/process';
import { AuditService, SessionService, type AuditEvent } from '@mad/proto/identity';
import { OrganizationErasureService } from '@mad/proto/tenancy';
import { bind, serveRpc, type RpcServer } from '@mad/rpc';
import { tenantSchemaService } from '@mad/tenancy';
import { testJwks, testServiceVerifier, testVerifier } from '@mad/testing';

export const silent = createLogger('test', { level: 'silent' });

/** The trail of a small tenant schema. */
export function noteMigrations(schema: string): MigrationClass[] {
  const create = defineMigration('2026_01_05_1000_create_notes.ts', {
    up: `CREATE TABLE ${schema}.notes (
      note_id uuid PRIMARY KEY DEFAULT gen_random_uuid(), body text NOT NULL, CHECK (body <> ''))`,
    down: `DROP TABLE ${schema}.notes`,
  });
  const stars = defineMigration('2026_01_06_1000_add_stars.ts', {
    up: `ALTER TABLE ${schema}.notes ADD COLUMN stars integer NOT NULL DEFAULT 0;
      CREATE FUNCTION ${schema}.star_count() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT sum(stars) FROM ${schema}.notes'`,
    down: `DROP FUNCTION ${schema}.star_count(); ALTER TABLE ${schema}.notes DROP COLUMN stars`,
  });
  return [create, stars];
}

/** The owner of a tenant schema, as a service of its own. Each request waits for what `gate` makes of it. */
export async function serveSchemaOwner(
  schema: string,
  migrations: MigrationClass[],
  port = 0,
  gate: (message: unknown) => Promise<void> = () => Promise.resolve(),
): Promise<RpcServer> {
  return serveRpc({
    service: schema,
    host: '127.0.0.1',
    port,
    connectPort: 0,
    services: [tenantSchemaService({ schema, migrations, logger: silent })],
    interceptors: [
      accessInterceptor({ verifyUser: testVerifier(), verifyService: await testServiceVerifier(['provisioner']) }),
      (next) => async (request) => {
        if (!request.stream) await gate(request.message);
        return next(request);
      },
    ],
    logger: silent,
    drainMs: 0,
  });
}

/** Rows that identity and catalog have of organizations: removed two at a time, when they are asked to. */
export interface OwnedRows {
  left: Map<string, number>;
  removed: Map<string, number>;
  /** While true, nobody answers. */
  away: boolean;
}

/**
 * Identity, as far as provisioner asks it: publishes the keys of the tests' tokens, keeps audit events, removes rows of
 * organizations; catalog's part of that as well.
 */
export async function serveIdentity(events: AuditEvent[], rows: OwnedRows): Promise<RpcServer> {
  return serveRpc({
    service: 'identity',
    host: '127.0.0.1',
    port: 0,
    services: [
      bind(AuditService, {
        appendAuditEvents(request) {
          events.push(...request.events);
          return { appended: request.events.length };
        },
      }),
      bind(OrganizationErasureService, {
        eraseOrganization({ orgId }) {
          if (rows.away) throw new ConnectError('away', Code.Unavailable);
          const left = rows.left.get(orgId) ?? 0;
          const gone = Math.min(2, left);
          rows.left.set(orgId, left - gone);
          rows.removed.set(orgId, (rows.removed.get(orgId) ?? 0) + gone);
          return { done: gone === left, rows: { things: BigInt(rows.removed.get(orgId)!) } };
        },
      }),
      bind(SessionService, {
        async getJsonWebKeySet() {
          const { keys } = await testJwks();
          return { keys: keys.map(({ kid, kty, crv, x, y }) => ({ kid, kty, crv, alg: 'ES256', use: 'sig', x, y })) };
        },
      }),
    ],
    interceptors: [
      accessInterceptor({ verifyUser: testVerifier(), verifyService: await testServiceVerifier(['provisioner']) }),
    ],
    logger: silent,
    drainMs: 0,
  });
}
