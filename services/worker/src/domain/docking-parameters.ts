import type { Box } from '@mad/chemistry';

/** What a docking run is told, in the names and units of the task definition `vina.dock`. */
export interface DockingParameters {
  /** Centre and edge lengths in Å. */
  box: Box;
  exhaustiveness: number;
  /** Poses kept of each replica. */
  numModes: number;
  /** Poses further above the best than this (kcal/mol) are not printed. */
  energyRange: number;
  /** The first replica's seed; never 0, which Vina takes as "random". */
  seed: number;
  /** Independent searches of each molecule; three or more give a confidence. */
  replicas: number;
}

// A seed is a 32-bit integer.
const MIN_SEED = -2_147_483_648;
const MAX_SEED = 2_147_483_647;

/**
 * Reads the parameters as they were hashed. Catalog has filled in the defaults and refused what is unknown; what is
 * checked here is what would otherwise change a run without a word.
 * @throws RangeError naming the parameter.
 */
export function dockingParameters(parameters: Readonly<Record<string, unknown>>): DockingParameters {
  const number = (name: string, least: number, most: number) => {
    const value = parameters[name];
    if (typeof value !== 'number' || !(value >= least && value <= most)) {
      throw new RangeError(`${name} is ${JSON.stringify(value)}, not a number from ${least} to ${most}`);
    }
    return value;
  };
  const whole = (name: string, least: number, most: number) => {
    const value = number(name, least, most);
    if (!Number.isInteger(value)) throw new RangeError(`${name} is ${value}, not a whole number`);
    return value;
  };
  const seed = whole('seed', MIN_SEED, MAX_SEED);
  if (seed === 0) throw new RangeError('seed is 0, which would make the search random');
  return {
    box: {
      center: [number('center_x', -1_000, 1_000), number('center_y', -1_000, 1_000), number('center_z', -1_000, 1_000)],
      size: [number('size_x', 1, 126), number('size_y', 1, 126), number('size_z', 1, 126)],
    },
    exhaustiveness: whole('exhaustiveness', 1, 1_024),
    numModes: whole('num_modes', 1, 100),
    energyRange: number('energy_range', 0, 100),
    seed,
    replicas: whole('replicas', 1, 100),
  };
}

/** The seeds of a molecule's replicas: counted up from the first, leaving out 0 and starting over after the largest. */
export function replicaSeeds({ seed, replicas }: Pick<DockingParameters, 'seed' | 'replicas'>): number[] {
  const seeds = [seed];
  while (seeds.length < replicas) {
    const next = (seeds.at(-1) ?? seed) + 1;
    seeds.push(next > MAX_SEED ? MIN_SEED : next === 0 ? 1 : next);
  }
  return seeds;
}
