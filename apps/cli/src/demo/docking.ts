import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { readLibrary } from '../commands/molecule.ts';
import { publishPipeline, readPipelineFile, storeReceptor } from '../commands/pipeline.ts';
import type { Output } from '../output.ts';
import type { Settings } from '../settings.ts';
import { EXAMPLES } from './examples.ts';
import type { DemoOrganization } from './members.ts';
import { register, runJob, showHits } from './run-job.ts';

/** Docks guests into β-cyclodextrin where Vina is installed. */
export async function dockingOf(
  acme: DemoOrganization,
  settings: Settings,
  when: string,
  stamp: string,
  output: Output,
) {
  const none = (outcome: string) => ({ outcome, registered: 0, report: undefined });
  if (when === 'off') return none('off');
  if (when !== 'on' && (settings.remote || !installed('vina') || !installed('obabel'))) {
    const hint = settings.remote
      ? 'no docking: add --docking on where a worker of that system has AutoDock Vina'
      : 'no docking: AutoDock Vina is not here; on Debian: apt-get install autodock-vina openbabel';
    output.note(hint);
    return none(hint);
  }
  const guests = await register(
    acme,
    `guests ${stamp}`,
    await readLibrary(`${EXAMPLES}cyclodextrin-guests.smi`),
    output,
  );
  const receptor = await storeReceptor(acme.signed, `${EXAMPLES}beta-cyclodextrin.pdbqt`, 'beta-cyclodextrin');
  const box = JSON.parse(await readFile(`${EXAMPLES}beta-cyclodextrin.box.json`, 'utf8')) as {
    center: [number, number, number];
    size: [number, number, number];
  };
  const [center_x, center_y, center_z] = box.center;
  const [size_x, size_y, size_z] = box.size;
  const docking = await publishPipeline(acme.signed, await readPipelineFile(`${EXAMPLES}cyclodextrin-docking.json`));
  output.note('docking the guests into β-cyclodextrin');
  const { job, report } = await runJob(
    acme,
    {
      pipelineId: docking.pipelineId,
      setId: guests.setId,
      name: 'guests in β-cyclodextrin',
      parameters: { receptor: receptor.artifactId, center_x, center_y, center_z, size_x, size_y, size_z },
    },
    output,
  );
  await showHits(acme, job, output);
  return { outcome: report.state, registered: guests.registered, report };
}

const installed = (program: string): boolean =>
  spawnSync(program, ['--version'], { stdio: 'ignore' }).error === undefined;
