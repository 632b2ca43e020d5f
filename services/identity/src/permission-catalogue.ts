import type { DescFile } from '@bufbuild/protobuf';
import { getOption, hasOption } from '@bufbuild/protobuf';
import { access, Audience } from '@mad/proto/access';
import * as catalog from '@mad/proto/catalog';
import * as identity from '@mad/proto/identity';
import * as provisioner from '@mad/proto/provisioner';
import * as results from '@mad/proto/results';
import { permissionCatalogue, type MethodAccess, type PermissionCatalogue } from './domain/permissions.ts';

const AUDIENCES: Record<Audience, MethodAccess['audience'] | undefined> = {
  [Audience.UNSPECIFIED]: undefined,
  [Audience.PUBLIC]: 'public',
  [Audience.USER]: 'user',
  [Audience.PLATFORM]: 'platform',
  [Audience.SERVICE]: 'service',
};

function isFile(value: unknown): value is DescFile {
  return typeof value === 'object' && value !== null && (value as { kind?: unknown }).kind === 'file';
}

function* methodsOf(contracts: readonly object[]): Iterable<MethodAccess> {
  for (const file of contracts.flatMap((contract) => Object.values(contract).filter(isFile))) {
    for (const method of file.services.flatMap(({ methods }) => methods)) {
      if (!hasOption(method, access)) continue;
      const { audience, permission } = getOption(method, access);
      const name = AUDIENCES[audience];
      if (name !== undefined) yield { audience: name, permission };
    }
  }
}

/** Every permission that a method of any service asks for: the contracts are the one list there is. */
export function readPermissionCatalogue(): PermissionCatalogue {
  return permissionCatalogue(methodsOf([identity, catalog, results, provisioner]));
}
