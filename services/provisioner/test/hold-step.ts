import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';

/** An operation that stands still before a step. */
export interface HeldStep {
  /** Resolves when one has come to it. */
  reached(): Promise<void>;
  /** Lets it, and all after it, go on. Repeatable. */
  release(): Promise<void>;
}

const LOCK = 4_711;

/** Lets no operation go on to a step until released. `rows`: the superuser in the metadata database. */
export async function holdBefore(rows: pg.Client, step: string): Promise<HeldStep> {
  await rows.query(`
    CREATE FUNCTION public.hold_step() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      PERFORM pg_advisory_xact_lock(${LOCK}); RETURN NEW; END $$;
    CREATE TRIGGER hold_step BEFORE UPDATE OF step ON provisioner.tenants FOR EACH ROW
      WHEN (NEW.step = '${step}' AND OLD.step <> NEW.step) EXECUTE FUNCTION public.hold_step();
    SELECT pg_advisory_lock(${LOCK})`);
  let released = false;
  return {
    reached: () =>
      waitFor(rows, `SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = ${LOCK} AND NOT granted`),
    async release() {
      if (released) return;
      released = true;
      await rows.query(`SELECT pg_advisory_unlock(${LOCK})`);
      await rows.query('DROP FUNCTION public.hold_step CASCADE');
    },
  };
}

/** Waits until the query finds something. */
export async function waitFor(client: pg.ClientBase, sql: string, values: unknown[] = []): Promise<void> {
  for (let wait = 0; wait < 2_000; wait += 1) {
    const { rowCount } = await client.query(sql, values);
    if (rowCount! > 0) return;
    await delay(20);
  }
  throw new Error(`waited in vain for ${sql}`);
}
