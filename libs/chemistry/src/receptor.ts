import { createHash } from 'node:crypto';

/** Most atoms of a receptor; a ribosome's subunit has fewer. */
export const MAX_RECEPTOR_ATOMS = 200_000;

// A file full of faults is reported by its first ones.
const MAX_PROBLEMS = 20;

// The atom types AutoDock Vina 1.2 reads, spelled as it demands (each was tried; HS, OS, NS and upper case are refused).
const ATOM_TYPES = new Set('C A N NA O OA S SA H HD P F Cl Br I Si At Na K Mg Ca Mn Fe Co Ni Cu Zn Cd Hg U'.split(' '));

// Records that say nothing of the atoms' positions.
const IGNORED = /^(REMARK|HEADER|TITLE|COMPND|SOURCE|AUTHOR|CRYST1|MODEL|ENDMDL|CONECT|MASTER|TER|END|USER)\b/;
const FLEXIBLE = /^(ROOT|ENDROOT|BRANCH|ENDBRANCH|TORSDOF|BEGIN_RES|END_RES)\b/;
const DECIMAL = /^[+-]?\d+(\.\d+)?$/;

/** A box in the receptor's coordinates, in Å. */
export interface Box {
  center: [number, number, number];
  size: [number, number, number];
}

/** One atom of a receptor: position in Å, partial charge in e, both to 3 decimals. */
export interface ReceptorAtom {
  record: 'ATOM' | 'HETATM';
  name: string;
  residue: string;
  chain: string;
  residueNumber: string;
  position: [number, number, number];
  charge: number;
  type: string;
}

/** A receptor as it is hashed and as it is docked into: the same text. */
export interface Receptor {
  /** The canonical PDBQT. */
  text: string;
  /** Lower-case hex SHA-256 of the canonical text. */
  sha256: string;
  atoms: ReceptorAtom[];
}

export interface ReceptorProblem {
  /** Line of the file, from 1; 0 for the file as a whole. */
  line: number;
  message: string;
}

/** A PDBQT file that is no rigid receptor, with every fault found (at most 20) and its line. */
export class ReceptorError extends Error {
  readonly problems: ReceptorProblem[];

  constructor(problems: ReceptorProblem[]) {
    super(problems.map(({ line, message }) => (line > 0 ? `line ${line}: ${message}` : message)).join('; '));
    this.name = 'ReceptorError';
    this.problems = problems;
  }
}

/**
 * Reads a rigid receptor in PDBQT and writes it in canonical form: its ATOM and HETATM records in their order, numbered
 * anew, coordinates and charges to 3 decimals, everything else left out. Two files that differ only in remarks, serial
 * numbers, occupancies or line ends have one canonical form.
 * @throws ReceptorError naming every line at fault.
 */
export function parseReceptor(text: string): Receptor {
  const problems: ReceptorProblem[] = [];
  const atoms: ReceptorAtom[] = [];
  let models = 0;
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const message = readLine(line);
    if (message === undefined) continue;
    problems.push({ line: index + 1, message });
    if (problems.length === MAX_PROBLEMS) break;
  }
  if (problems.length === 0 && atoms.length === 0) problems.push({ line: 0, message: 'the receptor has no atoms' });
  if (problems.length > 0) throw new ReceptorError(problems);

  const canonical = atoms.map((atom, index) => atomLine(atom, index + 1)).join('') + 'TER\n';
  return { text: canonical, sha256: createHash('sha256').update(canonical).digest('hex'), atoms };

  /** Takes one line in, or says what is wrong with it. */
  function readLine(line: string): string | undefined {
    if (/[^\x20-\x7e\t]/.test(line)) return 'only printable ASCII belongs in a PDBQT file';
    if (line.trim() === '') return undefined;
    if (FLEXIBLE.test(line))
      return `${line.split(/\s/)[0]} belongs to a ligand or a flexible residue, not to a rigid receptor`;
    if (line.startsWith('MODEL') && ++models > 1) return 'a second MODEL: keep one conformation';
    if (IGNORED.test(line)) return undefined;
    if (!/^(ATOM  |HETATM)/.test(line)) return `unknown record '${line.slice(0, 6).trim()}'`;
    if (atoms.length === MAX_RECEPTOR_ATOMS) return `more than ${MAX_RECEPTOR_ATOMS} atoms`;
    const atom = readAtom(line);
    if (typeof atom === 'string') return atom;
    atoms.push(atom);
    return undefined;
  }
}

/** How many of the atoms lie inside the box, its faces included. */
export function receptorAtomsInBox(atoms: readonly ReceptorAtom[], { center, size }: Box): number {
  const inside = ({ position }: ReceptorAtom) =>
    position.every((coordinate, axis) => Math.abs(coordinate - center[axis]!) <= size[axis]! / 2);
  return atoms.filter(inside).length;
}

/** Reads the fixed columns of an atom record (the PDB's, then charge and type in columns 67–76 and 78–79). */
function readAtom(line: string): ReceptorAtom | string {
  const field = (from: number, to: number) => line.slice(from - 1, to).trim();
  const location = field(17, 17);
  if (location !== '' && location !== 'A') return `alternate location '${location}': keep one location of each atom`;
  const numbers: [string, string, number][] = [
    ['x', field(31, 38), 1_000],
    ['y', field(39, 46), 1_000],
    ['z', field(47, 54), 1_000],
    ['charge', field(67, 76), 100],
  ];
  for (const [name, value, limit] of numbers) {
    if (!DECIMAL.test(value)) return `${name} is '${value}', not a number in its columns`;
    if (Math.abs(Number(value)) >= limit) return `${name} is ${value}, beyond ±${limit}`;
  }
  const type = field(78, 79);
  if (!ATOM_TYPES.has(type)) return `'${type}' is no atom type AutoDock Vina reads`;
  const [x, y, z, charge] = numbers.map(([, value]) => toThousandth(Number(value)));
  return {
    record: line.startsWith('ATOM') ? 'ATOM' : 'HETATM',
    name: line.slice(12, 16),
    residue: line.slice(17, 20),
    chain: line.slice(21, 22),
    residueNumber: line.slice(22, 27),
    position: [x!, y!, z!],
    charge: charge!,
    type,
  };
}

function atomLine(atom: ReceptorAtom, serial: number): string {
  const [x, y, z] = atom.position.map((coordinate) => coordinate.toFixed(3).padStart(8));
  // Serial numbers have five columns; they wrap, as in the files of large structures.
  const number = String(serial % 100_000).padStart(5);
  const residue = `${atom.residue} ${atom.chain}${atom.residueNumber}`;
  const charge = atom.charge.toFixed(3).padStart(10);
  return `${atom.record.padEnd(6)}${number} ${atom.name} ${residue}   ${x}${y}${z}  0.00  0.00${charge} ${atom.type}\n`;
}

/** Rounds to 3 decimals; never minus zero, which would print as one. */
function toThousandth(value: number): number {
  return Math.round(value * 1_000) / 1_000 + 0;
}
