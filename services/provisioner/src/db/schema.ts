import { BackupEntity, BackupPolicyEntity } from './entities/backup.ts';
import { ConnectionShareEntity } from './entities/connection-share.ts';
import { ErasureEntity } from './entities/erasure.ts';
import { CleanupEntity, OperationEntity } from './entities/operation.ts';
import { RolloutEntity, RunEntity } from './entities/rollout.ts';
import { CredentialEntity, DataKeyEntity } from './entities/secret.ts';
import { ServerEntity } from './entities/server.ts';
import { StandbyEntity } from './entities/server-standby.ts';
import { PlacementEntity, SampleEntity } from './entities/placement.ts';
import { StockEntity } from './entities/stock.ts';
import { ChangeCounterEntity, ChangeEntity, TenantEntity } from './entities/tenant.ts';
import { SchemaReferenceEntity, TenantIndexEntity } from './entities/tenant-index.ts';
import { ServersAndTenants } from './migrations/2026_11_21_0900_servers_and_tenants.ts';
import { Queue } from './migrations/2026_11_21_0901_queue.ts';
import { Reporting } from './migrations/2026_11_25_0930_reporting.ts';
import { Operations } from './migrations/2026_11_25_1000_operations.ts';
import { TenantStock } from './migrations/2026_11_25_1010_tenant_stock.ts';
import { Backups } from './migrations/2026_11_25_1020_backups.ts';
import { Rotation } from './migrations/2026_11_25_1030_rotation.ts';
import { Rollouts } from './migrations/2026_11_25_1120_rollouts.ts';
import { Erasures } from './migrations/2026_11_25_1132_erasures.ts';
import { ServerPlacement } from './migrations/2026_11_25_1133_server_placement.ts';
import { ConnectionShares } from './migrations/2026_11_25_1140_connection_shares.ts';
import { KeyService } from './migrations/2026_11_25_1200_key_service.ts';
import { ServerStandbys } from './migrations/2026_11_25_1220_server_standbys.ts';
import { DriftLooks } from './migrations/2026_11_26_0900_drift_looks.ts';
import { CausesAndLooks } from './migrations/2026_11_26_1506_causes_and_looks.ts';

/** Every table of provisioner. */
export const provisionerEntities = [
  ServerEntity,
  TenantEntity,
  CredentialEntity,
  DataKeyEntity,
  OperationEntity,
  CleanupEntity,
  StockEntity,
  BackupEntity,
  BackupPolicyEntity,
  ConnectionShareEntity,
  ChangeCounterEntity,
  ChangeEntity,
  SchemaReferenceEntity,
  TenantIndexEntity,
  RolloutEntity,
  RunEntity,
  ErasureEntity,
  SampleEntity,
  PlacementEntity,
  StandbyEntity,
];

/** The schema's trail, in order. */
export const provisionerMigrations = [
  ServersAndTenants,
  Queue,
  Reporting,
  Operations,
  TenantStock,
  Backups,
  Rotation,
  Rollouts,
  Erasures,
  ServerPlacement,
  ConnectionShares,
  KeyService,
  ServerStandbys,
  DriftLooks,
  CausesAndLooks,
];
