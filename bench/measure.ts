import { performance } from 'node:perf_hooks';
import { setImmediate } from 'node:timers/promises';

/** One measurement of one side: milliseconds, or things per second, as its line says. */
export type Sampler = (round: number) => Promise<number>;

/** Measurements of both sides, by round. */
export interface Samples {
  ours: number[];
  floor: number[];
}

/** What is told of a list of measurements. */
export interface Summary {
  median: number;
  min: number;
  max: number;
}

/**
 * Measures both sides in turn, A B B A A B …, so that whatever the machine does meanwhile happens to both. Round 0 warms
 * up and is thrown away.
 */
export async function interleave(
  rounds: number,
  sides: { ours: Sampler; floor: Sampler },
  onRound: (round: number) => void = () => undefined,
): Promise<Samples> {
  const samples: Samples = { ours: [], floor: [] };
  for (let round = 0; round <= rounds; round += 1) {
    onRound(round);
    const order = round % 2 === 0 ? (['ours', 'floor'] as const) : (['floor', 'ours'] as const);
    for (const side of order) {
      const sample = await sides[side](round);
      if (round > 0) samples[side].push(sample);
    }
  }
  return samples;
}

/** Measures one side alone, for what has no floor. Round 0 is thrown away. */
export async function repeat(
  rounds: number,
  ours: Sampler,
  onRound: (round: number) => void = () => undefined,
): Promise<number[]> {
  const samples: number[] = [];
  for (let round = 0; round <= rounds; round += 1) {
    onRound(round);
    const sample = await ours(round);
    if (round > 0) samples.push(sample);
  }
  return samples;
}

/** How long `work` takes, in milliseconds. */
export async function millisecondsOf(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

/** Calls per second of `call` with so many in flight, over `durationMs`. Throws what a call throws. */
export async function ratePerSecond(
  options: { inFlight: number; durationMs: number },
  call: () => Promise<unknown>,
): Promise<number> {
  // What the other side left behind is collected now rather than on our time.
  await setImmediate();
  const start = performance.now();
  const end = start + options.durationMs;
  let calls = 0;
  const caller = async (): Promise<void> => {
    while (performance.now() < end) {
      await call();
      calls += 1;
    }
  };
  await Promise.all(Array.from({ length: options.inFlight }, caller));
  return (calls / (performance.now() - start)) * 1000;
}

/** Median, least and greatest. Throws RangeError for an empty list. */
export function summarize(samples: readonly number[]): Summary {
  const sorted = samples.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const min = sorted[0];
  const max = sorted.at(-1);
  if (min === undefined || max === undefined) throw new RangeError('nothing was measured');
  const median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
  return { median, min, max };
}

/** Ours over the floor, round by round: both of a round ran side by side, so the machine's mood cancels out. */
export function ratios({ ours, floor }: Samples): number[] {
  return ours.map((sample, round) => sample / floor[round]!);
}
