import { createServiceTokenSigner, serviceTokenInterceptor } from '@mad/auth';
import { createLogger, sleep } from '@mad/process';
import { resultsEntities } from '@mad/results';
import { grpcTransport, type GrpcTransport } from '@mad/rpc';
import { openTenants, type Tenants } from '@mad/tenancy';
import { SCHEMA, type ChaosSystem } from './system.ts';

const WRITERS = 2;
const PAUSE_MS = 10;
const AFTER_FAILURE_MS = 50;
/** A row of the ledger among an organization's jobs: nobody computes it. */
const INSERT = `INSERT INTO results.jobs (pipeline_version_id, status, input_signature, params, ended_at)
  VALUES (gen_random_uuid(), 'completed', repeat('1e', 32), jsonb_build_object('ledger', $1::int), now())`;

/** How rows and ledger differ. */
export interface LedgerDifference {
  lost: number;
  doubled: number;
}

/**
 * A client of one organization's database, as results is one, which writes numbers one after the other and remembers those
 * that were acknowledged. A write that failed is not repeated: it may have been made, or not.
 */
export class Ledger {
  readonly orgId: string;
  readonly acknowledged = new Set<number>();
  refused = 0;
  #tried = 0;
  #writing = false;
  #writers: Promise<unknown> = Promise.resolve();
  readonly #system: ChaosSystem;
  readonly #routes: GrpcTransport;
  #tenants: Tenants | undefined;

  constructor(system: ChaosSystem, orgId: string) {
    this.#system = system;
    this.orgId = orgId;
    const { signingKeys } = system.fleet.ground.secrets;
    const signer = createServiceTokenSigner({ service: 'results', privateJwk: signingKeys.results.privateJwk });
    this.#routes = grpcTransport(`127.0.0.1:${system.fleet.ground.ports.provisioner.port}`, {
      interceptors: [serviceTokenInterceptor(signer)],
    });
  }

  /** Begins to write, and goes on until `pause`. */
  async begin(): Promise<void> {
    this.#tenants ??= await openTenants({
      schema: SCHEMA,
      entities: resultsEntities,
      routes: this.#routes,
      node: 'chaos',
      poolMax: WRITERS,
      logger: createLogger('chaos', { level: 'silent' }),
    });
    this.#writing = true;
    this.#writers = Promise.all(Array.from({ length: WRITERS }, () => this.#write()));
  }

  /** Ends writing; answers when no write is under way. */
  async pause(): Promise<void> {
    this.#writing = false;
    await this.#writers;
  }

  async #write(): Promise<void> {
    while (this.#writing) {
      const number = (this.#tried += 1);
      try {
        await this.#tenants!.transact(this.orgId, (tx) => tx.query(INSERT, [number]));
        this.acknowledged.add(number);
        await sleep(PAUSE_MS);
      } catch {
        this.refused += 1;
        await sleep(AFTER_FAILURE_MS);
      }
    }
  }

  /** Compares the database with what was acknowledged, while nobody writes. */
  async compare(): Promise<LedgerDifference> {
    const rows = await this.#system.inside<{ number: number; times: number }>(
      this.orgId,
      `SELECT (params->>'ledger')::int AS number, count(*)::int AS times FROM results.jobs WHERE params ? 'ledger' GROUP BY 1`,
    );
    const there = new Map(rows.map(({ number, times }) => [number, times]));
    const lost = [...this.acknowledged].filter((number) => !there.has(number)).length;
    const doubled = rows.filter(({ number, times }) => times > 1 || number > this.#tried).length;
    return { lost, doubled };
  }

  async close(): Promise<void> {
    await this.pause();
    await this.#tenants?.close();
    this.#routes.close();
  }
}
