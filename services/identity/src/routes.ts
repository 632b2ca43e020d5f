import {
  AuditService,
  MemberService,
  OrganizationService,
  PlatformService,
  RoleService,
  SessionService,
  TokenService,
} from '@mad/proto/identity';
import { OrganizationErasureService } from '@mad/proto/tenancy';
import { bind, type BoundService } from '@mad/rpc';
import type { IdentityContext } from './context.ts';
import { auditService } from './rpc/audit-service.ts';
import { memberService } from './rpc/member-service.ts';
import { organizationErasureService } from './rpc/organization-erasure-service.ts';
import { organizationService } from './rpc/organization-service.ts';
import { platformService } from './rpc/platform-service.ts';
import { roleService } from './rpc/role-service.ts';
import { sessionService } from './rpc/session-service.ts';
import { tokenService } from './rpc/token-service.ts';

/** Everything identity serves. */
export function routes(context: IdentityContext): BoundService[] {
  return [
    bind(AuditService, auditService(context)),
    bind(MemberService, memberService(context)),
    bind(OrganizationErasureService, organizationErasureService(context)),
    bind(OrganizationService, organizationService(context)),
    bind(PlatformService, platformService(context)),
    bind(RoleService, roleService(context)),
    bind(SessionService, sessionService(context)),
    bind(TokenService, tokenService(context)),
  ];
}
