import { create, createFileRegistry, type DescMethod } from '@bufbuild/protobuf';
import {
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
  FileDescriptorProtoSchema,
  type FieldDescriptorProto,
} from '@bufbuild/protobuf/wkt';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { FieldDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';

type Field = MessageInitShape<typeof FieldDescriptorProtoSchema>;

function field(number: number, name: string, rest: Partial<FieldDescriptorProto> = {}): Field {
  return { name, number, type: Type.STRING, label: Label.OPTIONAL, ...rest } as Field;
}

const SECRET = { options: { debugRedact: true } } as Partial<FieldDescriptorProto>;

/** A service of these tests only, made without a .proto file. */
const file = create(FileDescriptorProtoSchema, {
  name: 'note.proto',
  package: 'mad.test.v1',
  syntax: 'proto3',
  messageType: [
    { name: 'Part', field: [field(1, 'words'), field(2, 'password', SECRET)] },
    {
      name: 'CreateNoteRequest',
      field: [
        field(1, 'title'),
        field(2, 'request_id'),
        field(3, 'password', SECRET),
        field(4, 'parts', { type: Type.MESSAGE, typeName: '.mad.test.v1.Part', label: Label.REPEATED }),
        field(5, 'labels', {
          type: Type.MESSAGE,
          typeName: '.mad.test.v1.CreateNoteRequest.LabelsEntry',
          label: Label.REPEATED,
        }),
      ],
      nestedType: [{ name: 'LabelsEntry', field: [field(1, 'key'), field(2, 'value')], options: { mapEntry: true } }],
    },
    { name: 'CreateNoteResponse', field: [field(1, 'note_id'), field(2, 'secret', SECRET)] },
  ],
  service: [
    {
      name: 'NoteService',
      method: [
        {
          name: 'CreateNote',
          inputType: '.mad.test.v1.CreateNoteRequest',
          outputType: '.mad.test.v1.CreateNoteResponse',
        },
      ],
    },
  ],
});

const registry = createFileRegistry(file, () => undefined);

export const createNote: DescMethod = registry.getService('mad.test.v1.NoteService')!.methods[0]!;
