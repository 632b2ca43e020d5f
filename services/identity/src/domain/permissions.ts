/** What a method's access option says, as far as permissions go. */
export interface MethodAccess {
  audience: 'public' | 'user' | 'platform' | 'service';
  permission: string;
}

/** Every permission there is, sorted: what a member can hold, and what a platform administrator can hold. */
export interface PermissionCatalogue {
  organization: readonly string[];
  platform: readonly string[];
}

/** A role every installation has. */
export interface BuiltInRole {
  name: 'user' | 'admin' | 'super_admin';
  permissions: readonly string[];
}

/** Asked of methods that anybody signed in may call on what is their own; nobody is granted it. */
const SELF = 'self';

/** What a scientist changes. A new resource is an administrator's until it is named here. */
const USER_RESOURCES = new Set(['artifacts', 'exports', 'jobs', 'molecules', 'pipelines', 'tokens']);

/** What even a reader of everything does not read. */
const ADMIN_READS = new Set(['audit.read']);

/** Collects the closed list of permissions from the access options of all contracts. */
export function permissionCatalogue(methods: Iterable<MethodAccess>): PermissionCatalogue {
  const organization = new Set<string>();
  const platform = new Set<string>();
  for (const { audience, permission } of methods) {
    if (permission === '' || permission === SELF) continue;
    if (audience === 'user') organization.add(permission);
    if (audience === 'platform') platform.add(permission);
  }
  return { organization: [...organization].sort(), platform: [...platform].sort() };
}

function isUserPermission(permission: string): boolean {
  if (permission.endsWith('.read')) return !ADMIN_READS.has(permission);
  return USER_RESOURCES.has(permission.slice(0, permission.indexOf('.')));
}

/** The roles every installation has: `user` and `admin` for members, `super_admin` for the platform's administrators. */
export function builtInRoles(catalogue: PermissionCatalogue): readonly BuiltInRole[] {
  return [
    { name: 'user', permissions: catalogue.organization.filter(isUserPermission) },
    { name: 'admin', permissions: catalogue.organization },
    { name: 'super_admin', permissions: catalogue.platform },
  ];
}

/** The role of platform administrators, which no member can be given. */
export const PLATFORM_ROLE = 'super_admin';

/** The names no organization can give its own roles. */
export const BUILT_IN_NAMES: ReadonlySet<string> = new Set(['user', 'admin', PLATFORM_ROLE]);

/** The permissions in `wanted` that are not in `held`, in the order asked for. */
export function exceeding(wanted: Iterable<string>, held: Iterable<string>): string[] {
  const holds = new Set(held);
  return [...new Set(wanted)].filter((permission) => !holds.has(permission));
}

/**
 * What an API token allows: its scopes as far as the person still holds them; everything the person holds when it has
 * no scopes. Sorted.
 */
export function scopedPermissions(scopes: readonly string[], held: readonly string[]): string[] {
  if (scopes.length === 0) return [...held].sort();
  const limit = new Set(scopes);
  return held.filter((permission) => limit.has(permission)).sort();
}
