import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { admit, fits, freeResources } from '../../src/domain/admission.ts';

const resources = fc.record({ cores: fc.integer({ min: 1, max: 16 }), memoryMb: fc.integer({ min: 1, max: 4_096 }) });

test('what is free is what the running tasks leave, never less than nothing', () => {
  const all = { cores: 4, memoryMb: 2_048 };
  expect(freeResources(all, [])).toEqual(all);
  expect(freeResources(all, [{ cores: 1, memoryMb: 600 }])).toEqual({ cores: 3, memoryMb: 1_448 });
  expect(freeResources(all, [{ cores: 9, memoryMb: 9_999 }])).toEqual({ cores: 0, memoryMb: 0 });
});

test('a task that fits by cores alone does not fit', () => {
  expect(fits({ cores: 1, memoryMb: 600 }, { cores: 2, memoryMb: 599 })).toBe(false);
  expect(fits({ cores: 2, memoryMb: 1 }, { cores: 1, memoryMb: 599 })).toBe(false);
  expect(fits({ cores: 1, memoryMb: 600 }, { cores: 1, memoryMb: 600 })).toBe(true);
});

test('admission never exceeds what is free and loses no task', () => {
  fc.assert(
    fc.property(fc.array(resources, { maxLength: 20 }), resources, (tasks, free) => {
      const { admitted, refused } = admit(tasks, free);
      const sum = (of: 'cores' | 'memoryMb') => admitted.reduce((total, task) => total + task[of], 0);
      expect(sum('cores')).toBeLessThanOrEqual(free.cores);
      expect(sum('memoryMb')).toBeLessThanOrEqual(free.memoryMb);
      expect(new Set([...admitted, ...refused])).toEqual(new Set(tasks));
      for (const task of refused) expect(fits(task, freeResources(free, admitted))).toBe(false);
    }),
  );
});
