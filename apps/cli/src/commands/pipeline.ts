import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { fromJson, type JsonValue } from '@bufbuild/protobuf';
import { uuidv7, type Env } from '@mad/process';
import {
  ArtifactPurpose,
  ArtifactSchema,
  ArtifactService,
  PipelineSchema,
  PipelineService,
  PipelineSpecSchema,
  PipelineTemplateSchema,
  PipelineVersionSchema,
  TaskDefinitionSchema,
  type Artifact,
  type Pipeline,
  type PipelineSpec,
  type PipelineVersion,
} from '@mad/proto/catalog';
import { action } from '../command.ts';
import { CommandFailure, EXIT } from '../failure.ts';
import { jsonOf, table } from '../output.ts';
import { allPages } from '../pages.ts';
import { asMember, type Signed } from '../session.ts';

/** A pipeline file: its name, what it is for, and what it does. */
export interface PipelineFile {
  name: string;
  description: string;
  spec: PipelineSpec;
}

/** pipeline publish, list, show, tasks, templates; receptor upload. */
export function pipelineCommands(mad: Command, env: Env): void {
  const pipeline = mad.command('pipeline').description('pipelines and what they are made of');
  pipeline
    .command('publish <file>')
    .description('publish the next version of the pipeline in a JSON file; the pipeline is made when new')
    .action(
      action(env, async ({ settings, output }, file) => {
        const signed = await asMember(settings);
        const version = await publishPipeline(signed, await readPipelineFile(file));
        output.answer(
          jsonOf(PipelineVersionSchema, version),
          `published version ${version.version} of pipeline ${version.pipelineId}`,
        );
      }),
    );
  pipeline
    .command('list')
    .description('pipelines, newest first')
    .action(
      action(env, async ({ settings, output }) => {
        const { api, orgId } = await asMember(settings);
        const found = await allPages(
          (pageToken) => api.client(PipelineService).listPipelines({ orgId, pageToken }),
          (page) => page.pipelines,
        );
        const rows = found.map((one) => [one.name, one.pipelineId, one.latestVersion, one.description]);
        output.answer(
          found.map((one) => jsonOf(PipelineSchema, one)),
          table(['name', 'pipeline', 'version', 'description'], rows),
        );
      }),
    );
  pipeline
    .command('show <name>')
    .description("a pipeline's newest published version")
    .action(
      action(env, async ({ settings, output }, name) => {
        const signed = await asMember(settings);
        const { pipelineId, latestVersion } = await pipelineByName(signed, name);
        if (latestVersion === 0) throw new CommandFailure(`${name} has no published version`, EXIT.notFound);
        const { pipelineVersion } = await signed.api
          .client(PipelineService)
          .getPipelineVersion({ orgId: signed.orgId, pipelineId, version: latestVersion });
        const json = jsonOf(PipelineVersionSchema, pipelineVersion);
        output.answer(json, JSON.stringify(json, null, 2));
      }),
    );
  pipeline
    .command('tasks')
    .description('what workers can do')
    .action(
      action(env, async ({ settings, output }) => {
        const { api, orgId } = await asMember(settings);
        const found = await allPages(
          (pageToken) => api.client(PipelineService).listTaskDefinitions({ orgId, pageToken }),
          (page) => page.taskDefinitions,
        );
        const rows = found.map((one) => [one.taskId, one.version, one.engine, one.scoreUnits, one.description]);
        output.answer(
          found.map((one) => jsonOf(TaskDefinitionSchema, one)),
          table(['task', 'version', 'engine', 'score', 'description'], rows),
        );
      }),
    );
  pipeline
    .command('templates')
    .description('pipelines to start from')
    .action(
      action(env, async ({ settings, output }) => {
        const { api, orgId } = await asMember(settings);
        const found = await allPages(
          (pageToken) => api.client(PipelineService).listPipelineTemplates({ orgId, pageToken }),
          (page) => page.pipelineTemplates,
        );
        const rows = found.map((one) => [one.name, one.category, one.description]);
        output.answer(
          found.map((one) => jsonOf(PipelineTemplateSchema, one)),
          table(['template', 'category', 'description'], rows),
        );
      }),
    );
  pipeline
    .command('receptor <file>')
    .description('store a receptor (PDBQT) for docking; the same content is stored once')
    .option('--name <name>', 'a name for people; default: the file')
    .action(
      action<{ name?: string }>(env, async ({ settings, output, options }, file) => {
        const signed = await asMember(settings);
        const artifact = await storeReceptor(signed, file, options.name ?? file);
        output.answer(jsonOf(ArtifactSchema, artifact), `receptor ${artifact.artifactId} (sha256 ${artifact.sha256})`);
      }),
    );
}

/** Reads a pipeline file: {"name", "description", "spec"}. */
export async function readPipelineFile(file: string): Promise<PipelineFile> {
  try {
    const { name, description, spec } = JSON.parse(await readFile(file, 'utf8')) as Record<string, JsonValue>;
    if (typeof name !== 'string') throw new Error('"name" must be a string');
    if (spec === undefined) throw new Error('"spec" is missing');
    return {
      name,
      description: typeof description === 'string' ? description : '',
      spec: fromJson(PipelineSpecSchema, spec),
    };
  } catch (error) {
    throw new CommandFailure(`${file}: ${(error as Error).message}`, EXIT.usage);
  }
}

/** Finds a pipeline by name. */
export async function pipelineByName({ api, orgId }: Signed, name: string): Promise<Pipeline> {
  const { pipelines } = await api.client(PipelineService).listPipelines({ orgId, name });
  if (!pipelines[0]) throw new CommandFailure(`no pipeline ${name}`, EXIT.notFound);
  return pipelines[0];
}

/** Makes and publishes the next version of a pipeline. */
export async function publishPipeline({ api, orgId }: Signed, file: PipelineFile): Promise<PipelineVersion> {
  const client = api.client(PipelineService);
  const { name, description, spec } = file;
  const known = (await client.listPipelines({ orgId, name })).pipelines[0];
  const pipeline = known ?? (await client.createPipeline({ orgId, requestId: uuidv7(), name, description })).pipeline!;
  const { pipelineId } = pipeline;
  const draft = await client.createPipelineVersion({ orgId, pipelineId, requestId: uuidv7(), spec });
  const { version } = draft.pipelineVersion!;
  const published = await client.publishPipelineVersion({ orgId, pipelineId, version, requestId: uuidv7() });
  return published.pipelineVersion!;
}

/** Stores a receptor. */
export async function storeReceptor({ api, orgId }: Signed, file: string, name: string): Promise<Artifact> {
  const content = await readFile(file).catch((error: Error) => {
    throw new CommandFailure(`cannot read ${file}: ${error.message}`, EXIT.usage);
  });
  const purpose = ArtifactPurpose.RECEPTOR;
  const request = { orgId, requestId: uuidv7(), purpose, name, content: new Uint8Array(content) };
  return (await api.client(ArtifactService).createArtifact(request)).artifact!;
}
