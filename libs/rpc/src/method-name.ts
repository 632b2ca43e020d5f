import type { DescMethod } from '@bufbuild/protobuf';

const names = new WeakMap<DescMethod, string>();

/** `mad.catalog.v1.JobService/GetJob`. */
export function methodName(method: DescMethod): string {
  let name = names.get(method);
  if (name === undefined) names.set(method, (name = `${method.parent.typeName}/${method.name}`));
  return name;
}
