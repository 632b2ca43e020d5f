import pg from 'pg';

/** On a connection that was lost between two statements pg only says that it is of no use: why it was lost says more. */
export function lossBehind(error: unknown, broken: Error | undefined): unknown {
  return broken !== undefined && error instanceof Error && error.message.includes('not queryable') ? broken : error;
}

/**
 * Runs `fn` on a connection of its own, closed afterwards. One that is lost fails the statement that runs, or else the next
 * one, with the reason it was lost; the event alone must not end the process.
 */
export async function withClient<T>(config: pg.ClientConfig, fn: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client(config);
  let broken: Error | undefined;
  client.on('error', (error) => (broken ??= error));
  await client.connect();
  try {
    return await fn(client);
  } catch (error) {
    throw lossBehind(error, broken);
  } finally {
    await client.end();
  }
}
