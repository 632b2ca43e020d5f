import { Code, ConnectError, type CallOptions, type Client } from '@connectrpc/connect';
import { backoff, SECOND_MS, sleep } from '@mad/process';
import type { JobInputProperties, JobService } from '@mad/proto/catalog';
import { rpcError } from '@mad/rpc';
import { ligandOf } from '../domain/input-signature.ts';

/** A job's frozen input in columns: a million of it is small. Item n is at n − 1. */
export interface Inputs {
  moleculeIds: string[];
  smiles: string[];
  names: string[];
  /** What catalog knew of each. */
  properties: (JobInputProperties | undefined)[];
}

const ATTEMPTS = 4;

const isTransient = (error: unknown): boolean =>
  error instanceof ConnectError && [Code.Unavailable, Code.ResourceExhausted, Code.Aborted].includes(error.code);

/**
 * Reads a job's input from catalog, all of it and before any transaction is open. A stream that is cut goes on after the
 * last item that arrived. FAILED_PRECONDITION when catalog gives another number of items than it announced.
 */
export async function readInputs(
  catalog: Client<typeof JobService>,
  { orgId, jobId, count }: { orgId: string; jobId: string; count: number },
  options: CallOptions,
): Promise<Inputs> {
  const inputs: Inputs = { moleculeIds: [], smiles: [], names: [], properties: [] };
  const wrong = (message: string): ConnectError =>
    rpcError(Code.FailedPrecondition, 'STATE_CONFLICT', `the job's input: ${message}`, { job_id: jobId });
  for (let attempt = 0; ; attempt += 1) {
    // Leaving the loop below does not end the stream; this does.
    const ended = new AbortController();
    const signal = options.signal === undefined ? ended.signal : AbortSignal.any([options.signal, ended.signal]);
    try {
      const request = { orgId, jobId, afterItemNo: inputs.smiles.length };
      for await (const message of catalog.listJobInputs(request, { ...options, signal })) {
        for (const { itemNo, moleculeId, canonicalSmiles, name, properties } of message.inputs) {
          if (itemNo !== inputs.smiles.length + 1) throw wrong(`item ${itemNo} follows ${inputs.smiles.length}`);
          if (itemNo > count) throw wrong(`more than the ${count} items announced`);
          inputs.moleculeIds.push(moleculeId);
          inputs.smiles.push(ligandOf(canonicalSmiles));
          inputs.names.push(name);
          inputs.properties.push(properties);
        }
      }
      if (inputs.smiles.length !== count) throw wrong(`${inputs.smiles.length} items instead of ${count}`);
      return inputs;
    } catch (error) {
      if (!isTransient(error) || attempt + 1 === ATTEMPTS || options.signal?.aborted) throw error;
      await sleep(backoff(attempt, { baseMs: 50, maxMs: SECOND_MS }), options.signal);
    } finally {
      ended.abort();
    }
  }
}
