import { resolve } from 'node:path';
import { readEnv, type Env } from '@mad/process';
import { readLocalState } from './local-system.ts';

/** What every command knows. */
export interface Settings {
  /** The gateway, e.g. http://127.0.0.1:8080. */
  url: string;
  /** True when the gateway was named by flag or environment: then it is not the local system's. */
  remote: boolean;
  /** The local system's data, sessions included. */
  home: string;
  /** An API token or access token to use instead of a session. */
  token: string | undefined;
  /** The organization to act in, by slug; empty means the one signed in to last. */
  organization: string;
  json: boolean;
}

/** The flags of every command, as parsed. */
export interface GlobalFlags {
  url?: string;
  home?: string;
  org?: string;
  json?: boolean;
}

/** Where the local system's gateway listens. */
export const LOCAL_URL = 'http://127.0.0.1:8080';

/** Flags over environment over the local system that runs over defaults. */
export function readSettings(env: Env, flags: GlobalFlags): Settings {
  return readEnv(env, (r) => {
    const url = flags.url ?? r.url('MAD_URL', { optional: true });
    const home = resolve(flags.home ?? r.string('MAD_HOME', { default: '.mad' }));
    return {
      url: (url ?? readLocalState(home)?.url ?? LOCAL_URL).replace(/\/+$/, ''),
      remote: url !== undefined,
      home,
      token: r.secret('MAD_TOKEN', { optional: true }),
      organization: flags.org ?? r.string('MAD_ORG', { default: '' }),
      json: flags.json ?? false,
    };
  });
}
