/** The Postgres server of a test run. */
export interface TestServer {
  kind: 'given' | 'container' | 'embedded';
  /** A superuser's URL, to the database `postgres`. */
  adminUrl: string;
  /** Ends it and deletes its data; a given one is left as it is. */
  stop(): Promise<void>;
}
