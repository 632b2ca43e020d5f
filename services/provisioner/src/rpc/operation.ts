import { create } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { OperationSchema, OperationState, type Operation } from '@mad/proto/provisioner';
import type { ProvisionerContext } from '../context.ts';
import { OPERATION_COLUMNS, type OperationRow, type OperationState as StateName } from '../db/entities/operation.ts';
import type { Held } from '../operations/lease.ts';

const STATES: Readonly<Record<StateName, OperationState>> = {
  running: OperationState.RUNNING,
  succeeded: OperationState.SUCCEEDED,
  failed: OperationState.FAILED,
  cancelled: OperationState.CANCELLED,
};

/** The table's name of a state; undefined for UNSPECIFIED. */
export function operationStateName(state: OperationState): StateName | undefined {
  return (Object.keys(STATES) as StateName[]).find((name) => STATES[name] === state);
}

/** The row as the API shows it; `last_error` is the tenant's, of a try that did not end the operation. */
export function operationMessage(row: OperationRow & { last_error: string }): Operation {
  return create(OperationSchema, {
    operationId: row.operation_id,
    orgId: row.org_id,
    schema: row.schema,
    kind: row.kind,
    state: STATES[row.state],
    step: row.step,
    progress: { done: BigInt(row.progress_done), total: BigInt(row.progress_total), unit: row.progress_unit },
    error: row.error || row.last_error,
    params: row.params,
    result: row.result,
    actorKind: row.actor_kind,
    userId: row.user_id ?? '',
    cancelRequested: row.cancel_requested_at !== null,
    createTime: timestampFromDate(row.started_at),
    updateTime: timestampFromDate(row.updated_at),
    endTime: row.ended_at === null ? undefined : timestampFromDate(row.ended_at),
  });
}

/** Carries a begun operation out from now on, whoever watches; answers what it is now. */
export async function startOperation({ runs, database }: ProvisionerContext, held: Held): Promise<Operation> {
  void runs.carryOut(held);
  const [row] = await database.asSystem((tx) =>
    tx.query<OperationRow>(`SELECT ${OPERATION_COLUMNS} FROM provisioner.operations WHERE operation_id = $1`, [
      held.operationId,
    ]),
  );
  return operationMessage({ ...row!, last_error: '' });
}
