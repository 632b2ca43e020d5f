/** The operating system account the server runs under. */
export interface Account {
  uid: number;
  gid: number;
}

/** `nobody` on every Linux and BSD in use: an account that owns nothing. */
const NOBODY: Account = { uid: 65534, gid: 65534 };

/**
 * The account to run the server under, or undefined for "as we are".
 * Postgres refuses to run as root, so root hands it to an account without rights.
 */
export function serverAccount(): Account | undefined {
  return process.getuid?.() === 0 ? NOBODY : undefined;
}
