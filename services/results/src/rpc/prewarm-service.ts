import { ConnectError, type ServiceImpl } from '@connectrpc/connect';
import { SECOND_MS } from '@mad/process';
import type { PrewarmService } from '@mad/proto/results';
import type { Context } from '../context.ts';

/** Opening costs the server some milliseconds each: many people who sign in at once are not worth a stall for others. */
const AT_ONCE = 4;
/** Later than that the first read has opened it itself. */
const PATIENCE_MS = 2 * SECOND_MS;

/** Opens the way to an organization's database before somebody asks for it. */
export function prewarmService({ tenants }: Pick<Context, 'tenants'>): ServiceImpl<typeof PrewarmService> {
  let running = 0;
  return {
    async prewarmTenant({ orgId }, { signal }) {
      if (running >= AT_ONCE) return { open: false };
      running += 1;
      try {
        return { open: await tenants.prewarm(orgId, { signal, deadlineMs: PATIENCE_MS }) };
      } catch (error) {
        // No database, not reachable, no connection after all: whoever reads will be told.
        if (error instanceof ConnectError) return { open: false };
        throw error;
      } finally {
        running -= 1;
      }
    },
  };
}
