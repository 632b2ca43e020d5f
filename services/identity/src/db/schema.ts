import { AuditChainEntity, AuditLogEntity } from './entities/audit.ts';
import { SigningKeyEntity, TokenEntity, UserSessionEntity } from './entities/credential.ts';
import { OrganizationEntity, OrgSettingsEntity } from './entities/organization.ts';
import { MembershipEntity, MembershipRoleEntity, UserEntity } from './entities/person.ts';
import { RoleEntity, RolePermissionEntity } from './entities/role.ts';
import { Organizations } from './migrations/2026_11_21_0900_organizations.ts';
import { People } from './migrations/2026_11_21_0901_people.ts';
import { Credentials } from './migrations/2026_11_21_0902_credentials.ts';
import { Audit } from './migrations/2026_11_21_0903_audit.ts';
import { Queue } from './migrations/2026_11_21_0904_queue.ts';
import { Reporting } from './migrations/2026_11_25_0930_reporting.ts';

/** Every table of identity: columns, types, defaults. Its rules, keys, indexes and comments are the migrations' alone. */
export const identityEntities = [
  OrganizationEntity,
  OrgSettingsEntity,
  UserEntity,
  MembershipEntity,
  MembershipRoleEntity,
  RoleEntity,
  RolePermissionEntity,
  UserSessionEntity,
  TokenEntity,
  SigningKeyEntity,
  AuditChainEntity,
  AuditLogEntity,
];

/** The schema's trail, in order. */
export const identityMigrations = [Organizations, People, Credentials, Audit, Queue, Reporting];
