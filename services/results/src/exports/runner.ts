import { Code, ConnectError } from '@connectrpc/connect';
import { backoff, SECOND_MS, sleep, uuidv7, type Logger } from '@mad/process';
import { endExport, ExportLost, leaveExport, takeExport } from './export-rows.ts';
import { writeExport, type ExportWriterDeps } from './write-export.ts';

/** Exports written at the same time by one process; the others wait in line. */
const AT_ONCE = 2;
/** A failure that may pass is tried again so often, then left to who asks next. */
const TRIES = 5;

/** What no repetition mends: the job is gone, or a structure is. */
const FINAL = new Set([Code.NotFound, Code.DataLoss, Code.InvalidArgument]);

interface Waiting {
  orgId: string;
  exportId: string;
}

/**
 * Writes exports beside the calls. Whose process dies is taken over by whoever is asked for it next: there is no list of
 * organizations here, and idle databases are not woken.
 */
export class ExportRunner {
  readonly #deps: ExportWriterDeps;
  readonly #logger: Logger;
  readonly #stop = new AbortController();
  /** This process, as leases name it. */
  readonly #owner = uuidv7();
  readonly #known = new Set<string>();
  readonly #line: Waiting[] = [];
  readonly #running = new Set<Promise<void>>();

  constructor(deps: ExportWriterDeps, logger: Logger) {
    this.#deps = deps;
    this.#logger = logger;
  }

  /** Has an export written that nobody writes; nothing happens when it is written here already. */
  soon(orgId: string, exportId: string): void {
    if (this.#known.has(exportId) || this.#stop.signal.aborted) return;
    this.#known.add(exportId);
    this.#line.push({ orgId, exportId });
    this.#next();
  }

  #next(): void {
    while (this.#running.size < AT_ONCE && this.#line.length > 0 && !this.#stop.signal.aborted) {
      const one = this.#line.shift()!;
      const run = this.#run(one).finally(() => {
        this.#known.delete(one.exportId);
        this.#running.delete(run);
        this.#next();
      });
      this.#running.add(run);
    }
  }

  /** Never throws: what fails is noted in the export's row, or left to who asks next. */
  async #run({ orgId, exportId }: Waiting): Promise<void> {
    const { signal } = this.#stop;
    for (let attempt = 0; attempt < TRIES && !signal.aborted; attempt += 1) {
      try {
        await this.#write(orgId, exportId);
        return;
      } catch (error) {
        if (error instanceof ExportLost) return;
        const isFinal = error instanceof ConnectError && FINAL.has(error.code);
        if (!signal.aborted)
          this.#logger.warn({ org_id: orgId, export_id: exportId, error }, 'an export was interrupted');
        await this.#after(orgId, exportId, isFinal ? error.rawMessage : undefined);
        if (isFinal) return;
        await sleep(backoff(attempt, { baseMs: SECOND_MS, maxMs: 30 * SECOND_MS }), signal).catch(() => undefined);
      }
    }
  }

  async #write(orgId: string, exportId: string): Promise<void> {
    const { tenants } = this.#deps;
    const row = await tenants.transact(orgId, (tx) => takeExport(tx, exportId, this.#owner));
    if (row === undefined) return;
    await writeExport(this.#deps, { orgId, owner: this.#owner, signal: this.#stop.signal }, row);
    this.#logger.info({ org_id: orgId, export_id: exportId }, 'an export is whole');
  }

  /** Fails the export for good, or lets go of it. */
  async #after(orgId: string, exportId: string, error: string | undefined): Promise<void> {
    await this.#deps.tenants
      .transact(orgId, async (tx) => {
        if (error === undefined) return leaveExport(tx, exportId, this.#owner);
        return endExport(tx, exportId, this.#owner, { error });
      })
      // The lease ends by itself.
      .catch(() => undefined);
  }

  /** Lets go of what is being written; resolves when that is done. */
  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#running);
  }
}
