import type { MessageInitShape } from '@bufbuild/protobuf';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError } from '@connectrpc/connect';
import { accessInterceptor } from '@mad/auth';
import { createLogger, sleep, uuidv7 } from '@mad/process';
import { JobService, QueueService, type JobInputPropertiesSchema, type SettleTaskRequest } from '@mad/proto/catalog';
import { SessionService } from '@mad/proto/identity';
import { RouteService, TenantState, type RouteSchema } from '@mad/proto/provisioner';
import { bind, notFound, rpcError, serveRpc, type RpcServer } from '@mad/rpc';
import { testJwks, testObjectKeys, testServiceVerifier, testVerifier } from '@mad/testing';

/** The one server of all routes. */
export const SERVER_ID = uuidv7();

/** A molecule of a job's input. */
export interface Molecule {
  moleculeId: string;
  smiles: string;
  name?: string;
  properties?: MessageInitShape<typeof JobInputPropertiesSchema>;
}

/** What the services around results know, and what results told them. */
export interface Neighbourhood {
  routes: Map<string, MessageInitShape<typeof RouteSchema>>;
  inputs: Map<string, Molecule[]>;
  /** Settles that catalog took, in order. */
  settled: SettleTaskRequest[];
  /** As many settles are refused as UNAVAILABLE. */
  refuseSettles: number;
  /** The next input stream is cut after so many items. */
  cutInputsAfter: number | undefined;
  /** How often inputs were asked for. */
  inputCalls: number;
}

const INPUTS_PER_MESSAGE = 1000;

/** Catalog, identity and provisioner as far as results talks to them: a real server that checks its caller. */
export async function serveNeighbours(around: Neighbourhood): Promise<RpcServer> {
  return serveRpc({
    service: 'neighbours',
    host: '127.0.0.1',
    port: 0,
    logger: createLogger('neighbours', { level: 'silent' }),
    interceptors: [
      accessInterceptor({ verifyUser: testVerifier(), verifyService: await testServiceVerifier(['results']) }),
    ],
    services: [
      bind(SessionService, {
        getJsonWebKeySet: async () => ({
          keys: (await testJwks()).keys.map((key) => ({ ...key }) as Record<string, string>),
        }),
      }),
      testObjectKeys(),
      bind(RouteService, {
        getRoute({ orgId, schema }) {
          const route = around.routes.get(orgId);
          if (route === undefined) {
            throw rpcError(
              Code.FailedPrecondition,
              'TENANT_NOT_PROVISIONED',
              `organization ${orgId} has no ${schema} database`,
            );
          }
          return { route };
        },
        leaseConnections() {
          const share = { serverId: SERVER_ID, connections: 20, generation: 1n };
          return { shares: [share], validFor: durationFromMs(60_000) };
        },
        async *watchTenantChanges({ afterSeq }, ctx) {
          const log = () => [...around.routes.values()].toSorted((a, b) => Number(a.changeSeq! - b.changeSeq!));
          let sent = afterSeq < 0n ? (log().at(-1)?.changeSeq ?? 0n) : afterSeq;
          let caughtUp = false;
          while (!ctx.signal.aborted) {
            for (const { changeSeq: seq = 0n, orgId, state, generation } of log()) {
              if (seq <= sent) continue;
              yield { seq, orgId, state, generation };
              sent = seq;
            }
            // Where the log stands.
            if (!caughtUp) yield { seq: sent, state: TenantState.UNSPECIFIED };
            caughtUp = true;
            await sleep(20, ctx.signal).catch(() => undefined);
          }
        },
      }),
      bind(JobService, {
        async *listJobInputs({ jobId, afterItemNo }) {
          around.inputCalls += 1;
          const molecules = around.inputs.get(jobId);
          if (molecules === undefined) throw notFound('job', jobId);
          const cut = around.cutInputsAfter;
          around.cutInputsAfter = undefined;
          const all = molecules
            .map(({ moleculeId, smiles, name, properties }, index) => ({
              itemNo: index + 1,
              moleculeId,
              canonicalSmiles: smiles,
              name: name ?? '',
              properties,
            }))
            .slice(afterItemNo, cut);
          for (let start = 0; start < all.length; start += INPUTS_PER_MESSAGE) {
            yield { inputs: all.slice(start, start + INPUTS_PER_MESSAGE) };
          }
          if (cut !== undefined) throw new ConnectError('cut', Code.Unavailable);
        },
      }),
      bind(QueueService, {
        settleTask(request) {
          if (around.refuseSettles > 0) {
            around.refuseSettles -= 1;
            throw new ConnectError('catalog is away', Code.Unavailable);
          }
          around.settled.push(request);
          return { applied: true };
        },
      }),
    ],
  });
}
