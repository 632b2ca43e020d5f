import type { Chemistry, Normalized, Rejected, Similar } from '@mad/chemistry';
import { isRejected } from '@mad/chemistry';
import type { Emit, Engine, EngineItem, EngineTask, ScoredItem } from './engine.ts';
import { EngineError, failedItem } from './engine.ts';

/** Molecules between two looks at the signal and two signs of progress. */
const BATCH_SIZE = 64;

/**
 * Properties and ligand-based similarity by RDKit.
 * - `rdkit.properties`: no score; every computed property, formula and InChIKey.
 * - `rdkit.similarity`: parameter `reference` (SMILES); the score is the Tanimoto similarity of Morgan fingerprints
 *   (radius 2, 2,048 bits) to it, 0 to 1, higher is better.
 */
export function createRdkitEngine(chemistry: Chemistry): Engine {
  async function properties({ items }: EngineTask, emit: Emit, signal: AbortSignal): Promise<void> {
    await inBatches(items, signal, emit, (batch) => chemistry.normalize(batch, { signal }), propertiesOf);
  }

  async function similarity({ items, parameters }: EngineTask, emit: Emit, signal: AbortSignal): Promise<void> {
    const reference = parameters['reference'];
    if (typeof reference !== 'string') throw new EngineError('INVALID_PARAMETER', 'reference is not a SMILES');
    const [refusal] = await chemistry.similarity(reference, [reference], { signal });
    if (refusal && isRejected(refusal)) throw new EngineError('INVALID_PARAMETER', `reference: ${refusal.message}`);
    const ask = (batch: readonly EngineItem[]) =>
      chemistry.similarity(
        reference,
        batch.map(({ smiles }) => smiles),
        { signal },
      );
    await inBatches(items, signal, emit, ask, similarityOf);
  }

  return {
    name: 'rdkit',
    tasks: ['rdkit.properties', 'rdkit.similarity'],
    scoreUnits: (task) => (task === 'rdkit.similarity' ? 'tanimoto' : ''),
    version: () => chemistry.version(),
    available: async () => ({ ok: true }),
    async run(task, emit, signal) {
      signal.throwIfAborted();
      if (task.task === 'rdkit.properties') return properties(task, emit, signal);
      if (task.task === 'rdkit.similarity') return similarity(task, emit, signal);
      throw new EngineError('UNKNOWN_TASK', `the rdkit engine runs no '${task.task}'`);
    },
    // The threads belong to whoever opened the chemistry.
    close: async () => undefined,
  };
}

async function inBatches<T extends object>(
  items: readonly EngineItem[],
  signal: AbortSignal,
  emit: Emit,
  ask: (batch: readonly EngineItem[]) => Promise<(T | Rejected)[]>,
  toResult: (answer: T) => Omit<ScoredItem, 'itemNo' | 'status'>,
): Promise<void> {
  for (let start = 0; start < items.length; start += BATCH_SIZE) {
    signal.throwIfAborted();
    const batch = items.slice(start, start + BATCH_SIZE);
    const answers = await ask(batch);
    for (const [index, { itemNo }] of batch.entries()) {
      const answer = answers[index];
      if (!answer) throw new EngineError('ENGINE_FAILED', `RDKit did not answer for item ${itemNo}`);
      if (isRejected(answer)) await emit(failedItem(itemNo, new EngineError('INVALID_MOLECULE', answer.message)));
      else await emit({ itemNo, status: 'scored', ...toResult(answer) });
    }
  }
}

function propertiesOf({ canonicalSmiles, inchikey, formula, properties }: Normalized): Pick<ScoredItem, 'resultData'> {
  return { resultData: { ...properties, formula, inchikey, canonical_smiles: canonicalSmiles } };
}

function similarityOf({ similarity }: Similar): Pick<ScoredItem, 'score' | 'resultData'> {
  return { score: similarity, resultData: { tanimoto: similarity } };
}
