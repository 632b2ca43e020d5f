import type { DescEnum, DescExtension, DescMessage } from '@bufbuild/protobuf';
import { file_buf_validate_validate as shippedFile } from '../../../node_modules/@bufbuild/protovalidate/dist/esm/gen/buf/validate/validate_pb.js';
import { expect, test } from '@jest/globals';
import { file_buf_validate_validate as ourFile } from '../../proto/src/gen/buf/validate/validate_pb.js';

// The validator reads its options from our descriptors by number: a wrong number would switch a rule off in silence.

const fieldOf = (message: DescMessage | undefined, name: string) =>
  message?.fields.find((field) => field.name === name);
const numberOf = (found: DescExtension | undefined) => found && `${found.extendee.typeName} ${found.number}`;

test('every extension has the number the validator reads', () => {
  expect(ourFile.extensions.length).toBeGreaterThan(0);
  for (const ours of ourFile.extensions) {
    const shipped = shippedFile.extensions.find(({ typeName }) => typeName === ours.typeName);
    expect(numberOf(ours)).toBe(numberOf(shipped));
  }
});

test.each(ourFile.messages.map((message) => [message.name, message] as const))(
  '%s has the same fields',
  (name, ours) => {
    const shipped = shippedFile.messages.find((message) => message.name === name);
    for (const field of ours.fields) {
      const theirs = fieldOf(shipped, field.name);
      expect({ field: field.name, number: field.number, kind: field.fieldKind, type: typeOf(field) }).toEqual({
        field: field.name,
        number: theirs?.number,
        kind: theirs?.fieldKind,
        type: theirs && typeOf(theirs),
      });
    }
  },
);

test.each(ourFile.enums.map((one) => [one.name, one] as const))('%s has the same values', (name, ours: DescEnum) => {
  const shipped = shippedFile.enums.find((one) => one.name === name);
  for (const value of ours.values) {
    expect(shipped?.values.find((theirs) => theirs.name === value.name)?.number).toBe(value.number);
  }
});

function typeOf(field: DescMessage['fields'][number]): unknown {
  return field.proto.type;
}
