import { ArtifactEntity } from './entities/artifact.ts';
import { ErasureEntity } from './entities/erasure.ts';
import { JobEntity } from './entities/job.ts';
import { MoleculeSetEntity, MoleculeSetMemberEntity } from './entities/molecule-set.ts';
import { MoleculeEntity, OrgUsageEntity } from './entities/molecule.ts';
import { PipelineEntity, PipelineTemplateEntity, PipelineVersionEntity } from './entities/pipeline.ts';
import { OrgQueueDepthEntity, OrgQueueEntity, TaskQueueEntity } from './entities/task-queue.ts';
import { TaskDefinitionEntity } from './entities/task-definition.ts';
import { Types } from './migrations/2026_11_21_0900_types.ts';
import { Molecules } from './migrations/2026_11_21_0901_molecules.ts';
import { MoleculeSets } from './migrations/2026_11_21_0902_molecule_sets.ts';
import { Artifacts } from './migrations/2026_11_21_0903_artifacts.ts';
import { Pipelines } from './migrations/2026_11_21_0904_pipelines.ts';
import { Queue } from './migrations/2026_11_21_0905_queue.ts';
import { Jobs } from './migrations/2026_11_21_1000_jobs.ts';
import { Traces } from './migrations/2026_11_25_0920_traces.ts';
import { QueueByOrganization } from './migrations/2026_11_25_0921_queue_by_organization.ts';
import { Reporting } from './migrations/2026_11_25_0930_reporting.ts';
import { TasksAhead } from './migrations/2026_11_25_0931_tasks_ahead.ts';
import { MaxAge } from './migrations/2026_11_25_1040_max_age.ts';
import { CoreTime } from './migrations/2026_11_25_1113_core_time.ts';
import { Erasures } from './migrations/2026_11_25_1131_erasures.ts';

/** Every table of catalog. */
export const catalogEntities = [
  MoleculeEntity,
  OrgUsageEntity,
  MoleculeSetEntity,
  MoleculeSetMemberEntity,
  ArtifactEntity,
  TaskDefinitionEntity,
  PipelineEntity,
  PipelineVersionEntity,
  PipelineTemplateEntity,
  JobEntity,
  OrgQueueEntity,
  OrgQueueDepthEntity,
  TaskQueueEntity,
  ErasureEntity,
];

/** The schema's trail, in order. */
export const catalogMigrations = [
  Types,
  Molecules,
  MoleculeSets,
  Artifacts,
  Pipelines,
  Queue,
  Jobs,
  Traces,
  QueueByOrganization,
  Reporting,
  TasksAhead,
  MaxAge,
  CoreTime,
  Erasures,
];
