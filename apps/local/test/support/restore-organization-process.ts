import { parseMasterKeys } from '@mad/provisioner';
import type { MetadataPlace } from '../../src/metadata-backup.ts';
import { restoreOrganization, type OrganizationRequest } from '../../src/restore-organization.ts';

// In a process of its own, to be killed. Its arguments: the place as JSON, its master key, the request as JSON.
const [place = '', masterKey = '', request = ''] = process.argv.slice(2);
await restoreOrganization(
  { ...(JSON.parse(place) as MetadataPlace), master: parseMasterKeys(masterKey) },
  JSON.parse(request) as OrganizationRequest,
);
