import { createClient, type Client } from '@connectrpc/connect';
import { MINUTE_MS } from '@mad/process';
import { OrganizationErasureService } from '@mad/proto/tenancy';
import type { GrpcTransport } from '@mad/rpc';

/** Each owner of metadata rows, by its name. */
export class RowOwners {
  readonly #owners: { name: string; transport: GrpcTransport; client: Client<typeof OrganizationErasureService> }[];

  /** `addresses`: "host:port" by service, those first whose rows go first. */
  constructor(addresses: Readonly<Record<string, string>>, to: (address: string) => GrpcTransport) {
    this.#owners = Object.entries(addresses).map(([name, address]) => {
      const transport = to(address);
      return { name, transport, client: createClient(OrganizationErasureService, transport) };
    });
  }

  /** Has every owner remove all it has of an organization. Answers all that was ever removed, by owner and table. */
  async erase(orgId: string, stop: AbortSignal): Promise<Record<string, Record<string, number>>> {
    const rows: Record<string, Record<string, number>> = {};
    for (const { name, client } of this.#owners) {
      for (;;) {
        const erased = await client.eraseOrganization({ orgId }, { timeoutMs: MINUTE_MS, signal: stop });
        rows[name] = Object.fromEntries(Object.entries(erased.rows).map(([table, n]) => [table, Number(n)]));
        if (erased.done) break;
      }
    }
    return rows;
  }

  close(): void {
    for (const { transport } of this.#owners) transport.close();
  }
}
