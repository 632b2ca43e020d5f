import type { BoundService } from '@mad/rpc';
import type { ProvisionerContext } from './context.ts';
import { backupService } from './rpc/backup-service.ts';
import { driftService } from './rpc/drift-service.ts';
import { erasureService } from './rpc/erasure-service.ts';
import { fleetStatisticsService } from './rpc/fleet-statistics-service.ts';
import { objectKeyService } from './rpc/object-key-service.ts';
import { operationService } from './rpc/operation-service.ts';
import { rolloutService } from './rpc/rollout-service.ts';
import { reconcileService } from './rpc/reconcile-service.ts';
import { routeService } from './rpc/route-service.ts';
import { serverService } from './rpc/server-service.ts';
import { tenantIndexService } from './rpc/tenant-index-service.ts';
import { tenantService } from './rpc/tenant-service.ts';

/** Everything provisioner serves. */
export function routes(context: ProvisionerContext): BoundService[] {
  return [
    tenantService(context),
    routeService(context),
    objectKeyService(context),
    serverService(context),
    operationService(context),
    backupService(context),
    erasureService(context),
    fleetStatisticsService(context),
    driftService(context),
    rolloutService(context),
    tenantIndexService(context),
    reconcileService(context),
  ];
}
