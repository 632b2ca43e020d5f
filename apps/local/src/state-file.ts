import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Ports } from './ports.ts';

/** What `<home>/local.json` says of the running system; `mad` reads it. */
export interface LocalState {
  pid: number;
  phase: string;
  ready: boolean;
  error?: string;
  url: string;
  services: Record<string, { port: number; connectPort: number }>;
  postgres: { port: number; version: string };
}

/** Keeps the state file of a system that starts, runs and ends. Writes are whole and in order. */
export class StateFile {
  readonly #path: string;
  #state: LocalState = {
    pid: process.pid,
    phase: 'starting',
    ready: false,
    url: '',
    services: {},
    postgres: { port: 0, version: '' },
  };
  #written: Promise<void> = Promise.resolve();

  constructor(home: string) {
    this.#path = join(home, 'local.json');
  }

  /** Changes what the file says. */
  update(change: Partial<LocalState>): Promise<void> {
    this.#state = { ...this.#state, ...change };
    const text = JSON.stringify(this.#state, null, 2);
    this.#written = this.#written.then(async () => {
      await writeFile(`${this.#path}.next`, text, { mode: 0o600 });
      await rename(`${this.#path}.next`, this.#path);
    });
    return this.#written;
  }

  /** Says where everything listens. */
  listening(ports: Ports, postgres: LocalState['postgres']): Promise<void> {
    const { gateway, ...services } = ports;
    return this.update({ url: `http://127.0.0.1:${gateway}`, services, postgres });
  }
}

/** Whether a process with this id lives. */
export function processStillRuns(pid: number): boolean {
  // 0 and negative numbers name process groups, this one's own among them.
  if (!(pid > 0)) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
