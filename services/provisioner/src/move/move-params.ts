import type { Held } from '../operations/lease.ts';

/** What moves are told. */
export interface MoveParams {
  source_server_id: string;
  source_server: string;
  target_server_id: string;
  target_server: string;
  /** How long the database that was moved away from is kept, in milliseconds. */
  keep_ms: number;
}

export const moveParams = ({ params }: Held): MoveParams => params as unknown as MoveParams;
