import type { PoseAtom } from './vina-output.ts';

/** Open Babel writes coordinates with 3 decimals, OpenChemLib's molfile has 4. */
const TOLERANCE = 0.0011;

interface Molfile {
  counts: string;
  atoms: string[];
  bonds: { atoms: [number, number]; rest: string }[];
  /** `M  CHG` and its like: pairs of an atom and a value. */
  properties: { name: string; pairs: [atom: number, value: number][] }[];
}

/**
 * Poses as structures. Docking moves a ligand's atoms but forgets its bonds; they come from the shape the ligand was
 * prepared from. An atom of the PDBQT is the molfile's at the same place; hydrogens on carbon have none and become implicit.
 */
export class PoseStructures {
  readonly #molfile: Molfile;
  /** Which atom of the molfile each of the PDBQT's is, from 0. */
  readonly #places: readonly number[];

  /** `prepared`: the PDBQT's atoms before docking. Throws a SyntaxError when they are not the molfile's. */
  constructor(molfile: string, prepared: readonly PoseAtom[]) {
    this.#molfile = readMolfile(molfile);
    const positions = this.#molfile.atoms.map(positionOf);
    const taken = new Set<number>();
    this.#places = prepared.map(({ position }, index) => {
      const place = positions.findIndex(
        (one, at) => !taken.has(at) && one.every((value, axis) => Math.abs(value - position[axis]!) <= TOLERANCE),
      );
      if (place === -1) throw new SyntaxError(`atom ${index + 1} of the ligand is not in its molfile`);
      taken.add(place);
      return place;
    });
  }

  /** A pose as a V2000 mol block, atoms in the molfile's order. Throws a SyntaxError for another molecule's pose. */
  molBlock(pose: readonly PoseAtom[]): string {
    if (pose.length !== this.#places.length) {
      throw new SyntaxError(`the pose has ${pose.length} atoms, its ligand ${this.#places.length}`);
    }
    const { atoms, bonds, properties, counts } = this.#molfile;
    const positions = new Map(this.#places.map((place, index) => [place, pose[index]!.position]));
    /** The new number of each atom that is kept, from 1. */
    const numbers = new Map([...positions.keys()].sort((a, b) => a - b).map((place, index) => [place, index + 1]));
    const atomLines = [...numbers.keys()].map(
      (place) => `${positions.get(place)!.map(coordinate).join('')}${atoms[place]!.slice(30)}`,
    );
    const bondLines = bonds.flatMap(({ atoms: [from, to], rest }) => {
      const ends = [numbers.get(from - 1), numbers.get(to - 1)];
      return ends.includes(undefined) ? [] : [`${ends.map((end) => String(end).padStart(3)).join('')}${rest}`];
    });
    const propertyLines = properties.flatMap(({ name, pairs }) => {
      const kept = pairs.flatMap(([atom, value]) => {
        const number = numbers.get(atom - 1);
        return number === undefined ? [] : [`${String(number).padStart(4)}${String(value).padStart(4)}`];
      });
      return kept.length === 0 ? [] : [`M  ${name}${String(kept.length).padStart(3)}${kept.join('')}`];
    });
    const size = [atomLines, bondLines].map((lines) => String(lines.length).padStart(3)).join('');
    const lines = [`${size}${counts.slice(6)}`, ...atomLines, ...bondLines, ...propertyLines];
    // The dimension stands in columns 21 and 22.
    return `\n  MAD               3D\n\n${lines.join('\n')}\nM  END\n`;
  }
}

const positionOf = (line: string): number[] => [line.slice(0, 10), line.slice(10, 20), line.slice(20, 30)].map(Number);
const coordinate = (value: number): string => value.toFixed(4).padStart(10);

function readMolfile(text: string): Molfile {
  const lines = text.replaceAll('\r', '').split('\n');
  const counts = lines[3] ?? '';
  const [atomCount, bondCount] = [Number(counts.slice(0, 3)), Number(counts.slice(3, 6))];
  if (!counts.includes('V2000')) throw new SyntaxError('the molfile is not V2000');
  const bondsAt = 4 + atomCount;
  const restAt = bondsAt + bondCount;
  const properties = lines.slice(restAt).flatMap((line) => {
    const [, name, values] = /^M {2}(CHG|ISO|RAD)(.*)$/.exec(line) ?? [];
    if (name === undefined) return [];
    const numbers = values!.trim().split(/\s+/).slice(1).map(Number);
    const pairs = numbers.flatMap((atom, index): [number, number][] =>
      index % 2 === 0 ? [[atom, numbers[index + 1]!]] : [],
    );
    return [{ name, pairs }];
  });
  return {
    counts,
    atoms: lines.slice(4, bondsAt),
    bonds: lines.slice(bondsAt, restAt).map((line) => ({
      atoms: [Number(line.slice(0, 3)), Number(line.slice(3, 6))],
      rest: line.slice(6),
    })),
    properties,
  };
}
