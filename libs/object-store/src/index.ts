export { objectKeys, type ObjectKey, type ObjectKeys } from './object-keys.ts';
export { InvalidKeyError, ObjectNotFoundError, type ObjectStore } from './object-store.ts';
export { openObjectStore } from './open.ts';
export { ObjectDamagedError, sealedStore } from './sealed-store.ts';
