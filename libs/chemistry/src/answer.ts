import type { Mol } from '@rdkit/rdkit';
import { compositionOf, hillFormula } from './formula.ts';
import type { MoleculeProperties, Normalized } from './molecule.ts';
import type { RdkitModule } from './rdkit-module.ts';
import type { Rejected } from './smiles.ts';
import { MAX_ATOMS, MAX_MOLECULAR_WEIGHT, MAX_SMILES_LENGTH, checkSmiles } from './smiles.ts';

const MORGAN = JSON.stringify({ radius: 2, nBits: 2048 });

// RDKit's descriptor names, by ours; the formal charge comes from the molecule's JSON.
const DESCRIPTORS: Record<Exclude<keyof MoleculeProperties, 'formal_charge'>, string> = {
  molecular_weight: 'amw',
  exact_mass: 'exactmw',
  logp: 'CrippenClogP',
  molar_refractivity: 'CrippenMR',
  tpsa: 'tpsa',
  hbd: 'NumHBD',
  hba: 'NumHBA',
  rings: 'NumRings',
  aromatic_rings: 'NumAromaticRings',
  rotatable_bonds: 'NumRotatableBonds',
  heavy_atoms: 'NumHeavyAtoms',
  fraction_csp3: 'FractionCSP3',
  stereo_centers: 'NumAtomStereoCenters',
};

/** Canonical form, key, formula, properties and fingerprint of one SMILES. */
export function normalize(rdkit: RdkitModule, smiles: string): Normalized | Rejected {
  return checkSmiles(smiles) ?? rdkit.withMolecule<Normalized | Rejected>(smiles, (molecule) => read(rdkit, molecule));
}

/** The Morgan fingerprint alone, at a sixth of the price of `normalize`. */
export function fingerprint(rdkit: RdkitModule, smiles: string): { fingerprint: Uint8Array } | Rejected {
  return checkSmiles(smiles) ?? rdkit.withMolecule(smiles, (molecule) => ({ fingerprint: morgan(molecule) }));
}

/**
 * Another spelling of the same molecule, chosen by the seed: written from another atom where that changes the text,
 * else with Kekulé bonds, else with explicit hydrogens (`C` becomes `[CH4]`).
 */
export function respell(rdkit: RdkitModule, smiles: string, seed: number): { smiles: string } | Rejected {
  return (
    checkSmiles(smiles) ??
    rdkit.withMolecule(smiles, (molecule) => {
      const atoms = molecule.get_num_atoms();
      const start = ((seed % atoms) + atoms) % atoms;
      for (let step = 0; step < atoms; step++) {
        const rooted = spell(molecule, { rootedAtAtom: (start + step) % atoms, canonical: false });
        if (rooted !== smiles) return { smiles: rooted };
      }
      const kekule = spell(molecule, { doKekule: true });
      return { smiles: kekule !== smiles ? kekule : spell(molecule, { allHsExplicit: true }) };
    })
  );
}

function spell(molecule: Mol, options: object): string {
  return molecule.get_smiles(JSON.stringify(options));
}

function morgan(molecule: Mol): Uint8Array {
  return molecule.get_morgan_fp_as_uint8array(MORGAN) as Uint8Array;
}

function read(rdkit: RdkitModule, molecule: Mol): Normalized | Rejected {
  // Hydrogens written out one by one can still pass the textual count; what RDKit counts decides.
  const atoms = molecule.get_num_atoms();
  if (atoms > MAX_ATOMS) {
    return { reason: 'TOO_MANY_ATOMS', message: `the molecule has ${atoms} atoms, more than the ${MAX_ATOMS} allowed` };
  }
  const composition = compositionOf(molecule.get_json());
  if (composition.placeholder) {
    return { reason: 'PLACEHOLDER_ATOM', message: 'the molecule has a placeholder atom (*) where an element belongs' };
  }
  const canonicalSmiles = molecule.get_smiles();
  if (canonicalSmiles.length > MAX_SMILES_LENGTH) {
    return {
      reason: 'TOO_LONG',
      message: `the canonical SMILES has ${canonicalSmiles.length} characters, more than the ${MAX_SMILES_LENGTH} allowed`,
    };
  }
  const descriptors = JSON.parse(molecule.get_descriptors()) as Record<string, number>;
  const properties = propertiesOf(descriptors, composition.charge);
  if (properties.molecular_weight >= MAX_MOLECULAR_WEIGHT) {
    const weight = properties.molecular_weight.toFixed(0);
    return {
      reason: 'TOO_HEAVY',
      message: `the molecule weighs ${weight} g/mol; below ${MAX_MOLECULAR_WEIGHT} is allowed`,
    };
  }
  return {
    canonicalSmiles,
    inchikey: rdkit.inchikeyOf(molecule),
    formula: hillFormula(composition),
    molecularWeight: properties.molecular_weight,
    properties,
    fingerprint: morgan(molecule),
  };
}

function propertiesOf(descriptors: Record<string, number>, charge: number): MoleculeProperties {
  const named = Object.entries(DESCRIPTORS).map(([name, descriptor]) => [name, descriptors[descriptor]]);
  return { ...(Object.fromEntries(named) as Omit<MoleculeProperties, 'formal_charge'>), formal_charge: charge };
}
