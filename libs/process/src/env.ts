import { readFileSync } from 'node:fs';

/** The environment a configuration is read from. */
export type Env = Readonly<Record<string, string | undefined>>;

/** A configuration that cannot be used, with every problem found in it. Values are not repeated: they may be secret. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(`invalid configuration:\n${problems.map((problem) => `  ${problem}`).join('\n')}`);
    this.problems = problems;
  }
}

/** A setting that may be left out, with or without a value in its place. */
interface Default<T> {
  default?: T;
}
interface Optional {
  optional: true;
}
interface StringRules {
  pattern?: RegExp;
  /** What the pattern asks for, in words. */
  expected?: string;
}
interface IntegerRules {
  min?: number;
  max?: number;
}

/**
 * Reads settings one by one. Every NAME is also read from the file that NAME_FILE names (its final line break dropped).
 * An empty value counts as unset. A setting without default is required unless `optional`.
 */
export interface EnvReader {
  string(name: string, options: StringRules & Optional): string | undefined;
  string(name: string, options?: StringRules & Default<string>): string;
  integer(name: string, options: IntegerRules & Optional): number | undefined;
  integer(name: string, options?: IntegerRules & Default<number>): number;
  /** `true`, `1`, `yes`, `on` or `false`, `0`, `no`, `off`. */
  boolean(name: string, options?: Default<boolean> | boolean): boolean;
  /** An absolute URL, e.g. of a database. */
  url(name: string, options: Optional): string | undefined;
  url(name: string, options?: Default<string>): string;
  oneOf<const V extends string>(name: string, values: readonly V[], fallback?: V): V;
  /** Like string, never with a default: there is no default credential. */
  secret(name: string, options: { minLength?: number } & Optional): string | undefined;
  secret(name: string, options?: { minLength?: number }): string;
  /** JSON converted by `parse`, which throws an Error that says what is wrong without repeating the value. */
  json<T>(name: string, parse: (value: unknown) => T, options: Optional): T | undefined;
  json<T>(name: string, parse: (value: unknown) => T, options?: Default<T>): T;
  /** Records a problem between settings. */
  problem(name: string, message: string): void;
}

type AnyOptions = StringRules & IntegerRules & { optional?: true; default?: unknown; minLength?: number };

/**
 * Builds a typed configuration from the environment. All settings are read before anything is refused, so one start
 * reports every problem at once. Throws a ConfigError.
 */
export function readEnv<T>(env: Env, build: (reader: EnvReader) => T): T {
  const problems: string[] = [];
  const config = build(new Reader(env, problems) as EnvReader);
  if (problems.length > 0) throw new ConfigError(problems);
  return config;
}

class Reader {
  readonly #env: Env;
  readonly #problems: string[];

  constructor(env: Env, problems: string[]) {
    this.#env = env;
    this.#problems = problems;
  }

  problem(name: string, message: string): void {
    this.#problems.push(`${name}: ${message}`);
  }

  string(name: string, options: AnyOptions = {}): string | undefined {
    return this.#setting(name, options, '', (text) => {
      if (options.pattern !== undefined && !options.pattern.test(text)) {
        throw new Error(`must be ${options.expected ?? `like ${options.pattern.source}`}`);
      }
      return text;
    });
  }

  integer(name: string, options: AnyOptions = {}): number | undefined {
    const { min = Number.MIN_SAFE_INTEGER, max = Number.MAX_SAFE_INTEGER } = options;
    return this.#setting(name, options, 0, (text) => {
      const value = /^[+-]?\d+$/.test(text) ? Number(text) : Number.NaN;
      if (!Number.isSafeInteger(value)) throw new Error('must be a whole number');
      if (value < min) throw new Error(`must be at least ${min}`);
      if (value > max) throw new Error(`must be at most ${max}`);
      return value;
    });
  }

  boolean(name: string, options: AnyOptions | boolean = {}): boolean | undefined {
    return this.#setting(name, typeof options === 'boolean' ? { default: options } : options, false, (text) => {
      if (/^(true|1|yes|on)$/i.test(text)) return true;
      if (/^(false|0|no|off)$/i.test(text)) return false;
      throw new Error('must be true or false');
    });
  }

  url(name: string, options: AnyOptions = {}): string | undefined {
    return this.#setting(name, options, '', (text) => {
      if (!URL.canParse(text)) throw new Error('must be a URL');
      return text;
    });
  }

  oneOf(name: string, values: readonly string[], fallback?: string): string | undefined {
    return this.#setting(name, { default: fallback }, values[0] ?? '', (text) => {
      if (!values.includes(text)) throw new Error(`must be one of ${values.join(', ')}`);
      return text;
    });
  }

  secret(name: string, options: AnyOptions = {}): string | undefined {
    const { minLength = 1, optional } = options;
    return this.#setting(name, { optional }, '', (text) => {
      if (text.length < minLength) throw new Error(`must have at least ${minLength} characters`);
      return text;
    });
  }

  json<T>(name: string, parse: (value: unknown) => T, options: AnyOptions = {}): T | undefined {
    return this.#setting(name, options, undefined as T, (text) => {
      let value: unknown;
      try {
        value = JSON.parse(text);
      } catch {
        // The parser's own message quotes the text, which may be a key.
        throw new Error('must be JSON');
      }
      return parse(value);
    });
  }

  /** The setting's value; `placeholder` stands in for one that is missing or wrong until all problems are reported. */
  #setting<T>(name: string, options: AnyOptions, placeholder: T, parse: (text: string) => T): T | undefined {
    try {
      const text = this.#text(name);
      if (text !== undefined) return parse(text);
      if (options.default !== undefined) return options.default as T;
      if (options.optional) return undefined;
      throw new Error('is required');
    } catch (error) {
      this.problem(name, (error as Error).message);
      return placeholder;
    }
  }

  #text(name: string): string | undefined {
    const direct = this.#env[name] || undefined;
    const file = this.#env[`${name}_FILE`] || undefined;
    if (file === undefined) return direct;
    if (direct !== undefined) throw new Error(`is given twice: as ${name} and as ${name}_FILE`);
    let text: string;
    try {
      text = readFileSync(file, 'utf8');
    } catch (error) {
      throw new Error(`cannot read the file of ${name}_FILE (${(error as NodeJS.ErrnoException).code})`);
    }
    return text.replace(/\r?\n$/, '') || undefined;
  }
}
