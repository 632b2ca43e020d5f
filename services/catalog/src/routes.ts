import {
  ArtifactService,
  JobPreviewService,
  JobService,
  MoleculeService,
  MoleculeSetService,
  OrganizationSummaryService,
  PipelineService,
  QueueService,
} from '@mad/proto/catalog';
import { OrganizationErasureService } from '@mad/proto/tenancy';
import { bind, type BoundService } from '@mad/rpc';
import type { CatalogContext } from './context.ts';
import { artifactService } from './rpc/artifact-service.ts';
import { jobPreviewService } from './rpc/job-preview-service.ts';
import { jobService } from './rpc/job-service.ts';
import { moleculeService } from './rpc/molecule-service.ts';
import { moleculeSetService } from './rpc/molecule-set-service.ts';
import { organizationErasureService } from './rpc/organization-erasure-service.ts';
import { organizationSummaryService } from './rpc/organization-summary-service.ts';
import { pipelineService } from './rpc/pipeline-service.ts';
import { queueService } from './rpc/queue-service.ts';

/** Everything catalog serves. */
export function routes(context: CatalogContext): BoundService[] {
  return [
    bind(ArtifactService, artifactService(context)),
    bind(JobPreviewService, jobPreviewService(context)),
    bind(JobService, jobService(context)),
    bind(MoleculeService, moleculeService(context)),
    bind(MoleculeSetService, moleculeSetService(context)),
    bind(OrganizationErasureService, organizationErasureService(context)),
    bind(OrganizationSummaryService, organizationSummaryService(context)),
    bind(PipelineService, pipelineService(context)),
    bind(QueueService, queueService(context)),
  ];
}
