/** One atom of a docked pose: its AutoDock type and its position in Å. */
export interface PoseAtom {
  type: string;
  position: [number, number, number];
}

/** One model of Vina's output file. Energies in kcal/mol, distances in Å, all as printed (3 decimals). */
export interface VinaPose {
  rank: number;
  /** The affinity on the `VINA RESULT` line. */
  raw: number;
  rmsdLb: number;
  rmsdUb: number;
  /** Between ligand and receptor. */
  inter: number;
  /** Within the ligand. */
  intra: number;
  /** What was subtracted as the unbound ligand's energy. */
  unbound: number;
  atoms: PoseAtom[];
}

const RESULT = /^REMARK VINA RESULT:\s+(\S+)\s+(\S+)\s+(\S+)/m;

/**
 * Reads the PDBQT that Vina 1.2 writes, one model per pose, best first.
 * @throws SyntaxError when a model lacks one of its numbers.
 */
export function readVinaOutput(pdbqt: string): VinaPose[] {
  const models = pdbqt.split(/^MODEL\b.*$/m).slice(1);
  return models.map((model, index) => {
    const result = RESULT.exec(model);
    const [raw, rmsdLb, rmsdUb] = (result?.slice(1) ?? []).map(Number);
    const remark = (name: string) =>
      Number(new RegExp(`^REMARK ${name}:\\s+(\\S+)`, 'm').exec(model)?.[1] ?? Number.NaN);
    const pose = {
      rank: index + 1,
      raw: raw ?? Number.NaN,
      rmsdLb: rmsdLb ?? Number.NaN,
      rmsdUb: rmsdUb ?? Number.NaN,
      inter: remark('INTER'),
      intra: remark('INTRA'),
      unbound: remark('UNBOUND'),
      atoms: readAtoms(model),
    };
    const missing = Object.entries(pose).find(([, value]) => Number.isNaN(value));
    if (missing) throw new SyntaxError(`pose ${pose.rank} of Vina's output has no ${missing[0]}`);
    return pose;
  });
}

/** The atoms of a PDBQT, in its order. */
export function readAtoms(model: string): PoseAtom[] {
  const lines = model.split('\n').filter((line) => /^(ATOM|HETATM)/.test(line));
  return lines.map((line) => ({
    type: line.slice(77, 79).trim(),
    position: [Number(line.slice(30, 38)), Number(line.slice(38, 46)), Number(line.slice(46, 54))],
  }));
}
