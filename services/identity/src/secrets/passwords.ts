import { hash, verify } from '@node-rs/argon2';

/** Shortest password that is accepted for a new account. */
export const MIN_PASSWORD_LENGTH = 12;

/** argon2id, the OWASP password storage cheat sheet's second setting: 19 MiB, two passes, one lane. */
const COST = { memoryCost: 19 * 1024, timeCost: 2, parallelism: 1 };

/** Hashes a password (argon2id, PHC string). About 20 ms on one core. */
export function hashPassword(password: string): Promise<string> {
  return hash(password.normalize('NFKC'), COST);
}

/** Checks passwords in the same time whether or not there is one to check against. */
export interface PasswordChecker {
  /** `hashed` null always answers false, after the work of a check. */
  check(hashed: string | null, password: string): Promise<boolean>;
}

/** Makes a checker; hashes one throw-away password. */
export async function passwordChecker(): Promise<PasswordChecker> {
  const nobody = await hashPassword(crypto.randomUUID());
  return {
    async check(hashed, password) {
      const same = await verify(hashed ?? nobody, password.normalize('NFKC'));
      return same && hashed !== null;
    },
  };
}
