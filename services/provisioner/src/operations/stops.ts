/** The process is closing: another goes on with the operation. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
}

/** What the operation works on is not there any more: to try again would not bring it back. */
export class Gone extends Error {
  override readonly name = 'Gone';
}

/** Somebody asked for the operation's end. */
export class Cancelled extends Error {
  override readonly name = 'Cancelled';
}
