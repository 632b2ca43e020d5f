import { defineMigration } from '@mad/postgres';

/**
 * Operations say who asked, how far they are and what came of them, and can be cancelled. Kinds and steps are a closed
 * list in the code alone (domain/plan.ts): a release that brings a new one must be able to run beside the one before it.
 */
export const Operations = defineMigration(import.meta.url, {
  up: `
ALTER TABLE provisioner.operations
  ADD COLUMN params jsonb NOT NULL DEFAULT '{}',
  ADD COLUMN result jsonb NOT NULL DEFAULT '{}',
  ADD COLUMN actor_kind text NOT NULL DEFAULT 'service',
  ADD COLUMN user_id uuid,
  ADD COLUMN step text NOT NULL DEFAULT '',
  ADD COLUMN progress_done bigint NOT NULL DEFAULT 0,
  ADD COLUMN progress_total bigint NOT NULL DEFAULT 0,
  ADD COLUMN progress_unit text NOT NULL DEFAULT 'steps',
  ADD COLUMN cancel_requested_at timestamptz(3),
  ADD COLUMN updated_at timestamptz(3) NOT NULL DEFAULT now(),
  DROP CONSTRAINT operations_kind_check,
  DROP CONSTRAINT operations_state_check,
  ADD CONSTRAINT operations_kind_check CHECK (kind ~ '^[a-z][a-z_]{0,62}$'),
  ADD CONSTRAINT operations_state_check CHECK (state IN ('running', 'succeeded', 'failed', 'cancelled')),
  ADD CONSTRAINT operations_step_check CHECK (step ~ '^([a-z][a-z_]{0,62})?$'),
  ADD CONSTRAINT operations_params_check CHECK (jsonb_typeof(params) = 'object'),
  ADD CONSTRAINT operations_result_check CHECK (jsonb_typeof(result) = 'object'),
  ADD CONSTRAINT operations_actor_kind_check CHECK (actor_kind IN ('user', 'platform', 'service')),
  ADD CONSTRAINT operations_progress_check CHECK (progress_done BETWEEN 0 AND progress_total);
COMMENT ON COLUMN provisioner.operations.params IS 'Internal: what was asked for; never secrets';
COMMENT ON COLUMN provisioner.operations.result IS 'Internal: what came of it; never secrets';
COMMENT ON COLUMN provisioner.operations.user_id IS 'PII: the person who asked for it, where one did';
COMMENT ON COLUMN provisioner.operations.step IS 'Internal: the step it is at, or was at when it ended';
COMMENT ON COLUMN provisioner.operations.cancel_requested_at IS 'Internal: when somebody asked for its end';
CREATE INDEX idx_operations_started_at ON provisioner.operations (started_at, operation_id);
ALTER TABLE provisioner.tenants
  DROP CONSTRAINT tenants_step_check,
  ADD CONSTRAINT tenants_step_check CHECK (step ~ '^[a-z][a-z_]{0,62}$');
`,
  down: `
ALTER TABLE provisioner.tenants
  DROP CONSTRAINT tenants_step_check,
  ADD CONSTRAINT tenants_step_check CHECK (step IN ('create_login_roles', 'create_database', 'grant_connect', 'verify',
    'close_connections', 'open_connections', 'migrate'));
DROP INDEX provisioner.idx_operations_started_at;
-- The release before knows no such end.
UPDATE provisioner.operations SET state = 'failed', error = 'cancelled' WHERE state = 'cancelled';
ALTER TABLE provisioner.operations
  DROP CONSTRAINT operations_kind_check,
  DROP CONSTRAINT operations_state_check,
  DROP COLUMN params,
  DROP COLUMN result,
  DROP COLUMN actor_kind,
  DROP COLUMN user_id,
  DROP COLUMN step,
  DROP COLUMN progress_done,
  DROP COLUMN progress_total,
  DROP COLUMN progress_unit,
  DROP COLUMN cancel_requested_at,
  DROP COLUMN updated_at,
  ADD CONSTRAINT operations_kind_check CHECK (kind IN ('provision', 'suspend', 'resume', 'migrate')),
  ADD CONSTRAINT operations_state_check CHECK (state IN ('running', 'succeeded', 'failed'));
`,
});
