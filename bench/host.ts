import { availableParallelism, cpus, loadavg, platform, release, totalmem } from 'node:os';

/** The machine a result was measured on. A number without these means nothing. */
export interface HostFacts {
  at: string;
  platform: string;
  cpu: string;
  cores: number;
  memory_gib: number;
  node: string;
  /** Over 1, 5 and 15 minutes: what others asked of the machine, and we. */
  load: number[];
  /** Of the server the rows used; absent where none did. */
  postgres?: string;
}

/** The facts as they are now. */
export function hostFacts(postgres: string | undefined): HostFacts {
  return {
    at: new Date().toISOString(),
    platform: `${platform()} ${release()}`,
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memory_gib: Math.round(totalmem() / 2 ** 30),
    node: process.versions.node,
    load: loadavg().map((value) => Math.round(value * 100) / 100),
    ...(postgres === undefined ? {} : { postgres }),
  };
}
