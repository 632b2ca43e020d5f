import type { ServiceImpl } from '@connectrpc/connect';
import type { PlatformService } from '@mad/proto/identity';
import { recordAudit } from '../audit/record.ts';
import type { IdentityContext } from '../context.ts';
import { PLATFORM_ORG_ID } from '../domain/audit-chain.ts';
import { seedRoles } from '../seed.ts';

/** What identity needs once per installation. */
export function platformService(context: IdentityContext): ServiceImpl<typeof PlatformService> {
  return {
    async seedIdentity(_request, ctx) {
      return context.database.asSystem(
        async (tx) => {
          const count = await seedRoles(tx, context.permissions);
          if (count.created > 0) {
            const fact = { action: 'platform.seed', entityType: 'role', entityId: '', metadata: { ...count } };
            await recordAudit(tx, ctx, PLATFORM_ORG_ID, fact);
          }
          return { ...count };
        },
        { signal: ctx.signal },
      );
    },
  };
}
