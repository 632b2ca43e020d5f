import type { MetadataPlace } from '../../src/metadata-backup.ts';
import { restoreOrganization, type OrganizationRequest } from '../../src/restore-organization.ts';

// In a process of its own, to be killed: the place and the request are its arguments, as JSON.
const [place, request] = process.argv.slice(2).map((one) => JSON.parse(one) as unknown);
await restoreOrganization(place as MetadataPlace, request as OrganizationRequest);
