import { Code, ConnectError, createContextKey, type HandlerContext } from '@connectrpc/connect';

/** A user acting in the organization of the verified token. */
export interface UserCaller {
  kind: 'user';
  userId: string;
  orgId: string;
  roles: string[];
  permissions: string[];
  sessionId?: string;
  /** The platform administrator behind the token, where one acts on the organization. */
  onBehalf?: string;
}

/** A platform administrator, acting on no organization. */
export interface PlatformCaller {
  kind: 'platform';
  userId: string;
  roles: string[];
  permissions: string[];
}

/** Another service of the installation. */
export interface ServiceCaller {
  kind: 'service';
  service: string;
  /** The end user behind the call, for audit only: it gives no right. */
  userId?: string;
}

/** Who calls. */
export type Caller = { kind: 'public' } | UserCaller | PlatformCaller | ServiceCaller;

/** Where the access interceptor puts the caller. Without one everybody is public. */
export const callerKey = createContextKey<Caller>({ kind: 'public' }, { description: 'mad caller' });

/** What of a HandlerContext the accessors here read. */
type HasValues = Pick<HandlerContext, 'values'>;

/** Who calls this method. */
export function callerOf(ctx: HasValues): Caller {
  return ctx.values.get(callerKey);
}

/** The organization of the verified token. A caller without one is a wrong access rule: the call is denied. */
export function orgOf(ctx: HasValues): string {
  return userOf(ctx).orgId;
}

/** The user of the verified token, with the organization. A caller of another kind is denied. */
export function userOf(ctx: HasValues): UserCaller {
  const caller = callerOf(ctx);
  if (caller.kind === 'user') return caller;
  throw new ConnectError('the caller acts in no organization', Code.PermissionDenied);
}

/** Who acts, as audit logs name them. */
export interface Actor {
  actorKind: 'user' | 'platform' | 'service';
  /** The person, where one is known. */
  userId?: string;
  /** The service, where one calls. */
  service?: string;
}

/** Who acts when this caller does. A platform administrator acting on an organization is named as one. */
export function actorOf(caller: Caller): Actor {
  switch (caller.kind) {
    case 'user':
      return caller.onBehalf === undefined
        ? { actorKind: 'user', userId: caller.userId }
        : { actorKind: 'platform', userId: caller.onBehalf };
    case 'platform':
      return { actorKind: 'platform', userId: caller.userId };
    case 'service':
      return { actorKind: 'service', userId: caller.userId, service: caller.service };
    default:
      return { actorKind: 'service' };
  }
}
