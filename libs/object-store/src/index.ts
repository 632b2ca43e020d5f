export { InvalidKeyError, ObjectNotFoundError, type ObjectStore } from './object-store.ts';
export { openObjectStore } from './open.ts';
