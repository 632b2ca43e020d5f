import { createAccessTokenVerifier, generateSigningKey, signAccessToken } from '@mad/auth';
import { uuidv7 } from '@mad/process';
import { millisecondsOf, repeat } from '../measure.ts';
import { scaled, type Row } from '../row.ts';

const TOKENS = 200;
const CALLS = 100_000;

/** Who calls, for a token that was verified before: every call of a user but the first. */
export const verifiedToken: Row = {
  name: 'verified-token',
  async run(bench) {
    const key = await generateSigningKey();
    const verify = createAccessTokenVerifier({ jwks: async () => ({ keys: [key.publicJwk] }) });
    const claims = { roles: ['user'], permissions: ['jobs.create', 'jobs.read', 'molecules.create', 'molecules.read'] };
    const tokens = await Promise.all(
      Array.from({ length: TOKENS }, () => signAccessToken(key, { userId: uuidv7(), orgId: uuidv7(), ...claims })),
    );
    for (const token of tokens) await verify(token);
    // As they arrive: every call has a string of its own, whose hash nobody has computed yet.
    const wire = tokens.map((token) => Buffer.from(token));
    const calls = scaled(bench, CALLS, 5_000);
    const ours = await repeat(scaled(bench, 15, 3), async () => {
      const ms = await millisecondsOf(async () => {
        for (let i = 0; i < calls; i += 1) await verify(wire[i % TOKENS]!.toString('latin1'));
      });
      return (ms / calls) * 1000;
    });
    return [{ name: 'verified-token', unit: 'µs', target: { of: 'value', atMost: 3 }, ours }];
  },
};
