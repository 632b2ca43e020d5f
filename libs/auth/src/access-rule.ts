import { getOption, hasOption, type DescMethod } from '@bufbuild/protobuf';
import { access, Audience } from '@mad/proto/access';

/** Who may call a method, as its proto says; `undefined` is nobody. */
export interface AccessRule {
  audience: Exclude<Audience, Audience.UNSPECIFIED>;
  /** The permission a user's or administrator's token must hold; `self` for what is the caller's own. */
  permission: string;
  /** The services that may call a SERVICE method. */
  callers: ReadonlySet<string>;
}

/** The permission of methods that act on nothing but the caller's own: any signed-in caller holds it. */
export const SELF = 'self';

/** Public services whose protos are not ours to annotate. */
const publicServices = new Set([
  'grpc.health.v1.Health',
  'grpc.reflection.v1.ServerReflection',
  'grpc.reflection.v1alpha.ServerReflection',
]);

const rules = new WeakMap<DescMethod, { rule: AccessRule | undefined }>();

/** The access rule of a method. A method that declares none, or one that lets in nobody in particular, has none. */
export function accessRuleOf(method: DescMethod): AccessRule | undefined {
  let known = rules.get(method);
  if (!known) rules.set(method, (known = { rule: readRule(method) }));
  return known.rule;
}

function readRule(method: DescMethod): AccessRule | undefined {
  if (publicServices.has(method.parent.typeName)) {
    return { audience: Audience.PUBLIC, permission: '', callers: new Set() };
  }
  if (!hasOption(method, access)) return undefined;
  const { audience, permission, callers } = getOption(method, access);
  switch (audience) {
    case Audience.PUBLIC:
      break;
    case Audience.USER:
    case Audience.PLATFORM:
      if (permission === '') return undefined;
      break;
    case Audience.SERVICE:
      if (callers.length === 0) return undefined;
      break;
    default:
      return undefined;
  }
  return { audience, permission, callers: new Set(callers) };
}
