import type { Command } from 'commander';
import type { Env } from '@mad/process';
import { GetPoseResponseSchema, PoseService } from '@mad/proto/results';
import { action } from '../command.ts';
import { jsonOf } from '../output.ts';
import { progressBar } from '../progress.ts';
import { saveFile } from '../save-file.ts';
import { asMember } from '../session.ts';

interface PoseOptions {
  task: string;
  replicate: number;
  rank: number;
}

interface SdfOptions {
  out: string;
  task: string;
  filter: string;
  bestPerMolecule?: boolean;
  item?: string[];
}

/** job pose, sdf. `job` is the family they belong to. */
export function jobPoseCommands(job: Command, env: Env): void {
  job
    .command('pose <job> <item>')
    .description('the structure of one pose of an item as a record of an SD file; without options its best')
    .option('--replicate <n>', 'the replica, with --rank', Number, 0)
    .option('--rank <n>', 'the rank within the replica, with --replicate', Number, 0)
    .option('--task <id>', "the task; default: the job's last that gives scores", '')
    .action(
      action<PoseOptions>(env, async ({ settings, output, options }, jobId, item) => {
        const { api, orgId } = await asMember(settings);
        const { task: taskId, replicate, rank: poseRank } = options;
        const request = { orgId, jobId, itemNo: Number(item), taskId, replicate, poseRank };
        const found = await api.client(PoseService).getPose(request);
        output.answer(jsonOf(GetPoseResponseSchema, found), found.sdf.trimEnd());
      }),
    );
  job
    .command('sdf <job>')
    .description('the best poses of its hits as one SD file, best hit first')
    .requiredOption('--out <file>', 'where to write it')
    .option('--filter <text>', 'only hits of which this holds, e.g. "score <= -7 AND rank <= 100"', '')
    .option('--best-per-molecule', 'only the first item of each molecule')
    .option('--item <n...>', 'only these items')
    .option('--task <id>', "the task; default: the job's last that gives scores", '')
    .action(
      action<SdfOptions>(env, async ({ settings, output, options }, jobId) => {
        const { api, orgId } = await asMember(settings);
        const { task: taskId, filter, bestPerMolecule = false, item = [], out } = options;
        const request = { orgId, jobId, taskId, filter, bestPerMolecule, itemNo: item.map(Number) };
        const bar = progressBar(output, 'poses', 0);
        let [poses, withoutStructure] = [0, 0];
        async function* pieces(): AsyncGenerator<Uint8Array> {
          for await (const piece of api.client(PoseService).downloadPoses(request)) {
            [poses, withoutStructure] = [Number(piece.poses), Number(piece.withoutStructure)];
            bar.update(poses, '', poses + withoutStructure);
            yield piece.content;
          }
        }
        let bytes: number;
        try {
          bytes = await saveFile(out, pieces());
        } finally {
          bar.stop();
        }
        const left = withoutStructure === 0 ? '' : `; ${withoutStructure} hits have no structure`;
        const answer = { file: out, poses, without_structure: withoutStructure, bytes };
        output.answer(answer, `${poses} poses in ${out}${left}`);
      }),
    );
}
