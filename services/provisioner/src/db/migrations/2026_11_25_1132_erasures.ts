import { appendOnlySql, defineMigration, rlsSql } from '@mad/postgres';

/** The signed records of organizations that were erased. */
export const Erasures = defineMigration(import.meta.url, {
  up: `
CREATE TABLE provisioner.erasure_records (
  erasure_id uuid NOT NULL,
  org_id uuid NOT NULL,
  operation_id uuid NOT NULL,
  record jsonb NOT NULL,
  hash text NOT NULL,
  key_id text NOT NULL,
  public_key jsonb NOT NULL,
  signature text NOT NULL,
  erased_at timestamptz(3) NOT NULL,
  CONSTRAINT erasure_records_pkey PRIMARY KEY (erasure_id),
  CONSTRAINT erasure_records_org_id_key UNIQUE (org_id),
  CONSTRAINT erasure_records_record_check CHECK (jsonb_typeof(record) = 'object'),
  CONSTRAINT erasure_records_hash_check CHECK (hash ~ '^[0-9a-f]{64}$'),
  CONSTRAINT erasure_records_public_key_check CHECK (jsonb_typeof(public_key) = 'object' AND NOT public_key ? 'd')
);
COMMENT ON TABLE provisioner.erasure_records IS 'Organizations that were erased: what, when, at whose request, signed. Never changed. Owner: provisioner';
COMMENT ON COLUMN provisioner.erasure_records.record IS 'Confidential: what was erased; names the customer';
COMMENT ON COLUMN provisioner.erasure_records.key_id IS 'Internal: RFC 7638 thumbprint of the key that signed';
COMMENT ON COLUMN provisioner.erasure_records.signature IS 'Internal: ES256 over the record with sorted keys, base64url';
CREATE INDEX idx_erasure_records_erased_at ON provisioner.erasure_records (erased_at, erasure_id);
${rlsSql({ schema: 'provisioner', table: 'erasure_records', systemMay: true })}
${appendOnlySql('provisioner', 'erasure_records')}
REVOKE ALL ON provisioner.erasure_records FROM mad_provisioner;
`,
  down: `DROP TABLE provisioner.erasure_records;`,
});
