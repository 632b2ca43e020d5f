import { defineMigration } from '@mad/postgres';

/** Data keys may be wrapped by a key service, whose text is longer than what a master key in the settings makes. */
export const KeyService = defineMigration(import.meta.url, {
  up: `
ALTER TABLE provisioner.data_keys DROP CONSTRAINT data_keys_wrapped_key_check;
ALTER TABLE provisioner.data_keys
  ADD CONSTRAINT data_keys_wrapped_key_check CHECK (octet_length(wrapped_key) BETWEEN 60 AND 512);
COMMENT ON COLUMN provisioner.data_keys.wrapped_key IS
  'Confidential: AES-256 key, sealed under the master key of that version; begins with vault:v where a key service did it';
`,
  down: `
ALTER TABLE provisioner.data_keys DROP CONSTRAINT data_keys_wrapped_key_check;
ALTER TABLE provisioner.data_keys ADD CONSTRAINT data_keys_wrapped_key_check CHECK (octet_length(wrapped_key) = 60);
COMMENT ON COLUMN provisioner.data_keys.wrapped_key IS 'Confidential: AES-256 key, sealed under the master key of that version';
`,
});
