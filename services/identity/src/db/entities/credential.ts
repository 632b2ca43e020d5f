import { EntitySchema } from '@mad/postgres';

/** A row of identity.user_sessions: one refresh token. */
export interface UserSessionRow {
  session_id: string;
  user_id: string;
  org_id: string | null;
  refresh_digest: Buffer;
  family: string;
  device: string;
  address: string;
  created_at: Date;
  last_seen_at: Date;
  used_at: Date | null;
  revoked_at: Date | null;
  expires_at: Date;
}

export const UserSessionEntity = new EntitySchema<UserSessionRow>({
  name: 'user_sessions',
  schema: 'identity',
  columns: {
    session_id: {
      type: 'uuid',
      primary: true,
      primaryKeyConstraintName: 'user_sessions_pkey',
      default: () => 'gen_random_uuid()',
    },
    user_id: { type: 'uuid' },
    org_id: { type: 'uuid', nullable: true },
    refresh_digest: { type: 'bytea' },
    family: { type: 'uuid' },
    device: { type: 'text', default: '' },
    address: { type: 'text', default: '' },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
    last_seen_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
    used_at: { type: 'timestamptz', precision: 3, nullable: true },
    revoked_at: { type: 'timestamptz', precision: 3, nullable: true },
    expires_at: { type: 'timestamptz', precision: 3 },
  },
});

/** A row of identity.tokens: an API token without its secret. */
export interface TokenRow {
  token_id: string;
  user_id: string;
  org_id: string;
  kind: 'api';
  name: string;
  prefix: string;
  digest: Buffer;
  scopes: string[];
  expires_at: Date;
  revoked: boolean;
  last_used_at: Date | null;
  created_at: Date;
}

export const TokenEntity = new EntitySchema<TokenRow>({
  name: 'tokens',
  schema: 'identity',
  columns: {
    token_id: {
      type: 'uuid',
      primary: true,
      primaryKeyConstraintName: 'tokens_pkey',
      default: () => 'gen_random_uuid()',
    },
    user_id: { type: 'uuid' },
    org_id: { type: 'uuid' },
    kind: { type: 'text', default: 'api' },
    name: { type: 'text' },
    prefix: { type: 'text' },
    digest: { type: 'bytea' },
    scopes: {
      type: 'text',
      array: true,
      default: '{}',
    },
    expires_at: { type: 'timestamptz', precision: 3 },
    revoked: { type: 'boolean', default: false },
    last_used_at: { type: 'timestamptz', precision: 3, nullable: true },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
});

/** A row of identity.signing_keys. */
export interface SigningKeyRow {
  kid: string;
  alg: 'ES256';
  public_key: Record<string, string>;
  private_key: Buffer;
  state: 'active' | 'retiring';
  not_before: Date;
  retire_at: Date | null;
  created_at: Date;
}

export const SigningKeyEntity = new EntitySchema<SigningKeyRow>({
  name: 'signing_keys',
  schema: 'identity',
  columns: {
    kid: { type: 'text', primary: true, primaryKeyConstraintName: 'signing_keys_pkey' },
    alg: { type: 'text' },
    public_key: { type: 'jsonb' },
    private_key: { type: 'bytea' },
    state: { type: 'text' },
    not_before: { type: 'timestamptz', precision: 3 },
    retire_at: { type: 'timestamptz', precision: 3, nullable: true },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
});
