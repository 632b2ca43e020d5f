import { clientOptions } from '@mad/postgres';
import { MINUTE_MS, SECOND_MS, sleep } from '@mad/process';
import { ReconcileService, TenantService, TenantState } from '@mad/proto/provisioner';
import { killAtStep, operationEnded, sweptClean } from '@mad/testing/operation-kills';
import pg from 'pg';
import { SERVER_NAME } from '../apps/local/src/environment.ts';
import { PLANS, type OperationKind } from '../services/provisioner/src/domain/plan.ts';
import type { Chaos, Outcome } from './scenario.ts';
import { insist, METADATA, SCHEMA } from './system.ts';

/** Who is killed at every step. */
export const VICTIMS = ['provisioner', 'results', 'postgres'] as const;
export type Victim = (typeof VICTIMS)[number];

/** How long a step may work at most before a kill, in milliseconds. */
export const STEP_MS = 150;
const LOOK_MS = 20;
const ASK_AGAIN_MS = 3 * SECOND_MS;
/** An operation that a kill made fail, as it may, leaves its later steps to the next one. */
const MAX_OPERATIONS_PER_KILL = 5;

/** Runs `fn` with the superuser in the metadata database. */
export async function withRows<T>({ system }: Chaos, fn: (rows: pg.Client) => Promise<T>): Promise<T> {
  const rows = new pg.Client(clientOptions(system.fleet.databaseUrl(METADATA)));
  // The server may be killed meanwhile.
  rows.on('error', () => undefined);
  await insist(() => rows.connect());
  try {
    return await fn(rows);
  } finally {
    await rows.end().catch(() => undefined);
  }
}

/** Kills a victim and starts it again. The server killed is the tenant's, or where it moves to. */
async function killAndStart({ system }: Chaos, victim: Victim, server: string): Promise<void> {
  if (victim === 'postgres') await system.crashServer(server);
  else await system.restart(victim);
}

/** A strike at somebody. */
export interface Strike {
  victim: Victim;
  /**
   * Waits for the moment, kills (the server named, where a server is the victim) and lets go; may leave it at waiting. What
   * it locks on its connection to the metadata cannot be noted as done meanwhile.
   */
  at: (rows: pg.Client, kill: (server: string) => Promise<void>) => Promise<unknown>;
}

/** Kills somebody and starts them again; answers whether somebody was killed. */
export async function strikeWhen(chaos: Chaos, { victim, at }: Strike): Promise<boolean> {
  let struck = false;
  const kill = async (server: string): Promise<void> => {
    struck = true;
    if (victim === 'provisioner') await chaos.system.fleet.kill(victim);
    else await killAndStart(chaos, victim, server);
  };
  await withRows(chaos, (rows) => at(rows, kill)).catch((error: unknown) => {
    // Where the server of the metadata was killed, whoever held the row is gone with it.
    if (!struck) throw error;
  });
  if (struck && victim === 'provisioner') await chaos.system.fleet.start(victim);
  return struck;
}

/** Kills at a step that cannot be noted as done meanwhile; answers whether somebody was killed. */
export function strike(
  chaos: Chaos,
  { operationId, step, victim, server }: { operationId: string; step: string; victim: Victim; server: string },
): Promise<boolean> {
  const { random } = chaos;
  return strikeWhen(chaos, {
    victim,
    at: (rows, kill) => killAtStep({ rows, operationId, step, withinMs: STEP_MS, kill: () => kill(server), random }),
  });
}

/** An operation to be killed in, again and again. */
export interface Killed {
  kind: OperationKind;
  /** Asks for one; what it answers is not looked at, since whoever asks may lose the answer. Answers the organization's id. */
  ask: () => Promise<{ orgId: string; call: () => Promise<unknown> }>;
  /** After each has ended. */
  ended: (orgId: string, ending: { state: string; error: string }) => Promise<string[]>;
}

/** Undergoes operation after operation until every step has seen every victim die, and `kills` have died. */
export async function killInOperations(
  chaos: Chaos,
  kills: number,
  { kind, ask, ended }: Killed,
): Promise<Pick<Outcome, 'kills' | 'problems' | 'notes'>> {
  const { steps } = PLANS[kind];
  const died = new Map<string, number>(
    steps.flatMap((step) => VICTIMS.map((victim) => [`${step} ${victim}`, 0] as const)),
  );
  const endings: Record<string, number> = {};
  const problems: string[] = [];
  const errors = new Set<string>();
  let done = 0;
  for (let round = 0; done < kills && round < kills * MAX_OPERATIONS_PER_KILL; round += 1) {
    const { orgId, call } = await ask();
    const operationId = await beginOperation(chaos, kind, orgId, call);
    for (const step of steps) {
      if (done >= kills) break;
      const victim = leastKilled(chaos, died, step);
      // Those who have seen their deaths here leave the operation to later steps.
      if (died.get(`${step} ${victim}`)! > Math.min(...died.values())) continue;
      const servers = [await chaos.system.serverOf(orgId), ...(kind.startsWith('move') ? [SERVER_NAME, 'second'] : [])];
      const server = servers[Math.floor(chaos.random() * servers.length)]!;
      if (!(await strike(chaos, { operationId, step, victim, server }))) continue;
      died.set(`${step} ${victim}`, died.get(`${step} ${victim}`)! + 1);
      done += 1;
      chaos.progress(`${done} of ${kills}: ${victim} at ${step}`);
    }
    const ending = await withRows(chaos, (rows) => operationEnded(rows, operationId));
    endings[ending.state] = (endings[ending.state] ?? 0) + 1;
    if (ending.error !== '') errors.add(ending.error);
    problems.push(...(await ended(orgId, ending)));
  }
  const never = [...died].filter(([, times]) => times === 0).map(([where]) => where);
  if (kills >= died.size && never.length > 0) problems.push(`nobody was killed at ${never.join(', ')}`);
  return { kills: done, problems, notes: { died: Object.fromEntries(died), endings, errors: [...errors] } };
}

/** Whose death a step has seen least. */
export function leastKilled({ random }: Chaos, died: ReadonlyMap<string, number>, step: string): Victim {
  const order = VICTIMS.map((victim) => ({ victim, times: died.get(`${step} ${victim}`)!, tie: random() }));
  return order.toSorted((a, b) => a.times - b.times || a.tie - b.tie)[0]!.victim;
}

/** Asks until there is a new operation; answers its id. */
async function beginOperation(
  { system }: Chaos,
  kind: OperationKind,
  orgId: string,
  call: () => Promise<unknown>,
): Promise<string> {
  const newest = async (): Promise<string | undefined> => {
    const [found] = await system.metadata<{ id: string }>(
      `SELECT operation_id AS id FROM provisioner.operations WHERE org_id = $1 AND kind = $2
       ORDER BY started_at DESC, operation_id DESC LIMIT 1`,
      orgId,
      kind,
    );
    return found?.id;
  };
  const before = await newest();
  let why: unknown;
  for (const until = performance.now() + MINUTE_MS; performance.now() < until;) {
    void call().catch((error: unknown) => (why = error));
    for (const again = performance.now() + ASK_AGAIN_MS; performance.now() < again; await sleep(LOOK_MS)) {
      const now = await newest();
      if (now !== undefined && now !== before) return now;
    }
  }
  throw new Error(`no ${kind} began`, { cause: why });
}

/** Asks for the tenant until it is ready. */
export async function untilReady({ system }: Chaos, orgId: string): Promise<void> {
  const tenants = system.asService(TenantService, 'provisioner', 'identity');
  await insist(async () => {
    const { tenant } = await tenants.ensureTenant({ orgId, schema: SCHEMA }, { timeoutMs: 10 * SECOND_MS });
    if (tenant?.state !== TenantState.READY) throw new Error(`the tenant is ${TenantState[tenant?.state ?? 0]}`);
  });
}

/** What is left at the servers that no row knows, once nothing is under way any more. */
export async function orphansAfter(
  chaos: Chaos,
): Promise<{ orphans: number; problems: string[]; differences: string[] }> {
  const { system } = chaos;
  await withRows(chaos, sweptClean);
  let differences: string[] = [];
  for (const until = performance.now() + MINUTE_MS; performance.now() < until; await sleep(SECOND_MS / 2)) {
    const fleet = (await system.platform()).client(ReconcileService);
    const seen = await insist(() => fleet.inspectFleet({}));
    differences = [
      ...seen.differences.map(({ kind, server, name }) => `${kind} ${server} ${name}`),
      ...seen.unreachable.map((server) => `${server} does not answer`),
      ...(await replicationLeft(system.fleet.databaseUrl('postgres'))),
      ...(await replicationLeft(system.second.adminUrlTo('postgres'))),
    ];
    if (differences.length === 0) break;
  }
  const resting = await system.metadata<{ org: string; state: string; step: string | null }>(
    `SELECT org_id AS org, state, step FROM provisioner.tenants WHERE step IS NOT NULL OR state NOT IN ('ready', 'erased')`,
  );
  const problems = resting.map(({ org, state, step }) => `the tenant of ${org} is ${state} at ${step ?? 'no step'}`);
  return { orphans: differences.length, problems, differences };
}

async function replicationLeft(url: string): Promise<string[]> {
  const client = new pg.Client(clientOptions(url));
  client.on('error', () => undefined);
  await client.connect();
  try {
    const { rows } = await client.query<{ what: string }>(
      `SELECT 'slot ' || slot_name AS what FROM pg_replication_slots UNION ALL SELECT 'subscription ' || subname FROM pg_subscription`,
    );
    return rows.map(({ what }) => what);
  } finally {
    await client.end();
  }
}
