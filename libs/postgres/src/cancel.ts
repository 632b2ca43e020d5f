import { connect } from 'node:net';
import { SECOND_MS } from '@mad/process';
import type pg from 'pg';

/** The number that tells a cancel request from a start-up message (PostgreSQL documentation, "Message Formats"). */
const CANCEL_REQUEST = 80_877_102;
const PACKET_BYTES = 16;
/** A server that has not stopped by then loses the connection instead. */
const PATIENCE_MS = SECOND_MS;

interface CancellableClient {
  host: string;
  port: number;
  processID: number | null;
  secretKey: number | null;
  connection: { stream: { destroy(): void } };
}

/**
 * Asks the server to stop what `client` is doing, over a connection of its own as the protocol wants it. The request
 * may arrive late and hit a later statement, so the client must not be used again once this was called.
 */
export function cancelStatement(client: pg.PoolClient): void {
  const { host, port, processID, secretKey, connection } = client as unknown as CancellableClient;
  setTimeout(() => connection.stream.destroy(), PATIENCE_MS).unref();
  if (processID === null || secretKey === null) return;
  const packet = Buffer.alloc(PACKET_BYTES);
  packet.writeInt32BE(PACKET_BYTES, 0);
  packet.writeInt32BE(CANCEL_REQUEST, 4);
  packet.writeInt32BE(processID, 8);
  packet.writeInt32BE(secretKey, 12);
  const messenger = connect(port, host);
  messenger.on('error', () => connection.stream.destroy());
  // The server closes when it has read: PgBouncer before 1.20 ends itself when the asker hangs up first.
  messenger.resume();
  messenger.setTimeout(PATIENCE_MS, () => messenger.destroy());
  messenger.unref();
  messenger.write(packet);
}
