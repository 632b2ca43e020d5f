import { parentPort, workerData } from 'node:worker_threads';

// Embeds one molecule and ends. OpenChemLib keeps conformers of fragments it has seen, and seeds some of its random
// numbers from the clock and a counter: only a fresh copy of it with the clock stopped gives one molecule one shape,
// whatever was embedded before and however busy the machine is.
Date.now = () => 0;
const { ConformerGenerator, Molecule, Resources } = await import('openchemlib');

const SEED = 42;

Resources.registerFromNodejs();
const molecule = Molecule.fromSmiles(String(workerData));
const embedded = new ConformerGenerator(SEED).getOneConformerAsMolecule(molecule);
parentPort?.postMessage(embedded ? embedded.toMolfile() : null, []);
