import { EntitySchema } from '@mad/postgres';
import type { Verdict } from '../../domain/placement.ts';

/** A row of provisioner.server_samples. */
export interface SampleRow {
  server_id: string;
  claimed_at: Date;
  sampled_at: Date | null;
  error: string;
  sessions: number;
  active: number;
  max_connections: number;
  size_bytes: number;
  sized_at: Date | null;
}

export const SampleEntity = new EntitySchema<SampleRow>({
  name: 'server_samples',
  schema: 'provisioner',
  columns: {
    server_id: { type: 'uuid', primary: true },
    claimed_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
    sampled_at: { type: 'timestamptz', precision: 3, nullable: true },
    error: { type: 'text', default: '' },
    sessions: { type: 'integer', default: 0 },
    active: { type: 'integer', default: 0 },
    max_connections: { type: 'integer', default: 0 },
    size_bytes: { type: 'bigint', default: 0 },
    sized_at: { type: 'timestamptz', precision: 3, nullable: true },
  },
});

/** A row of provisioner.placements. */
export interface PlacementRow {
  org_id: string;
  schema: string;
  region: string;
  server_name: string;
  verdicts: Verdict[];
  placed_at: Date;
}

export const PlacementEntity = new EntitySchema<PlacementRow>({
  name: 'placements',
  schema: 'provisioner',
  columns: {
    org_id: { type: 'uuid', primary: true },
    schema: { type: 'text', primary: true },
    region: { type: 'text' },
    server_name: { type: 'text' },
    verdicts: { type: 'jsonb' },
    placed_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
});
