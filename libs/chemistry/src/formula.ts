// Symbols by atomic number; index 0 is the placeholder atom.
const SYMBOLS = (
  '* H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr ' +
  'Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu ' +
  'Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr ' +
  'Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og'
).split(' ');

/** The counts a molecule's JSON gives: atoms by element symbol, and the sum of formal charges. */
export interface Composition {
  elements: Map<string, number>;
  charge: number;
  /** Whether a placeholder atom (`*`) is among them. */
  placeholder: boolean;
}

interface AtomJson {
  z?: number;
  impHs?: number;
  chg?: number;
}

interface MoleculeJson {
  defaults: { atom: Required<AtomJson> };
  molecules: { atoms: AtomJson[] }[];
}

/** Reads the composition out of RDKit's JSON (its commonchem format: atoms that leave a field out take the default). */
export function compositionOf(json: string): Composition {
  const { defaults, molecules } = JSON.parse(json) as MoleculeJson;
  const elements = new Map<string, number>();
  const add = (symbol: string, count: number) => elements.set(symbol, (elements.get(symbol) ?? 0) + count);
  let charge = 0;
  for (const { atoms } of molecules) {
    for (const atom of atoms) {
      add(SYMBOLS[atom.z ?? defaults.atom.z] ?? '*', 1);
      const hydrogens = atom.impHs ?? defaults.atom.impHs;
      if (hydrogens > 0) add('H', hydrogens);
      charge += atom.chg ?? defaults.atom.chg;
    }
  }
  return { elements, charge, placeholder: elements.has('*') };
}

/**
 * Hill order: carbon, hydrogen, then the rest by symbol; without carbon all by symbol. All fragments are counted
 * together, isotopes as their element, and a charge follows as `+`, `-`, `+2`, `-2`.
 */
export function hillFormula({ elements, charge }: Composition): string {
  const first = elements.has('C') ? ['C', 'H'] : [];
  const rest = [...elements.keys()].filter((symbol) => !first.includes(symbol)).toSorted();
  const counted = [...first, ...rest].map((symbol) => {
    const count = elements.get(symbol) ?? 0;
    return count === 0 ? '' : count === 1 ? symbol : `${symbol}${count}`;
  });
  return counted.join('') + chargeSuffix(charge);
}

function chargeSuffix(charge: number): string {
  if (charge === 0) return '';
  const sign = charge > 0 ? '+' : '-';
  return Math.abs(charge) === 1 ? sign : `${sign}${Math.abs(charge)}`;
}
