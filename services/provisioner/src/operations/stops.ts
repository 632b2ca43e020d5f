/** The process is closing: another goes on with the operation. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
}

/** Somebody asked for the operation's end. */
export class Cancelled extends Error {
  override readonly name = 'Cancelled';
}
