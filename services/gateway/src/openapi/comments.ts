import type {
  DescriptorProto,
  EnumDescriptorProto,
  FileDescriptorProto,
  FileDescriptorSet,
} from '@bufbuild/protobuf/wkt';

/** The comment above each declaration, by its full proto name, e.g. `mad.catalog.v1.Job.state`. */
export type Comments = ReadonlyMap<string, string>;

/** Field numbers of google/protobuf/descriptor.proto: a location's path is made of them and of indexes. */
const FILE = { message: 4, enum: 5, service: 6 } as const;
const MESSAGE = { field: 2, nested: 3, enum: 4 } as const;
const MEMBER = 2;

/** Reads the comments of every contract. Lines are joined, an empty line starts a paragraph. */
export function commentsOf(set: FileDescriptorSet): Comments {
  const comments = new Map<string, string>();
  for (const file of set.file) {
    const names = namesOf(file);
    for (const { path, leadingComments } of file.sourceCodeInfo?.location ?? []) {
      const name = names.get(path.join('.'));
      if (name && leadingComments) comments.set(name, paragraphs(leadingComments));
    }
  }
  return comments;
}

function paragraphs(comment: string): string {
  return comment
    .split(/\n\s*\n/)
    .map((paragraph) => paragraph.replace(/\s+/g, ' ').trim())
    .filter((paragraph) => paragraph !== '')
    .join('\n\n');
}

/** The full name of what stands at each path of a file. */
function namesOf(file: FileDescriptorProto): Map<string, string> {
  const names = new Map<string, string>();
  const addEnum = ({ name, value }: EnumDescriptorProto, scope: string, path: string) => {
    names.set(path, `${scope}.${name}`);
    value.forEach((one, i) => names.set(`${path}.${MEMBER}.${i}`, `${scope}.${name}.${one.name}`));
  };
  const addMessage = (message: DescriptorProto, scope: string, path: string) => {
    const name = `${scope}.${message.name}`;
    names.set(path, name);
    message.field.forEach((field, i) => names.set(`${path}.${MESSAGE.field}.${i}`, `${name}.${field.name}`));
    message.nestedType.forEach((nested, i) => addMessage(nested, name, `${path}.${MESSAGE.nested}.${i}`));
    message.enumType.forEach((nested, i) => addEnum(nested, name, `${path}.${MESSAGE.enum}.${i}`));
  };
  file.messageType.forEach((message, i) => addMessage(message, file.package, `${FILE.message}.${i}`));
  file.enumType.forEach((one, i) => addEnum(one, file.package, `${FILE.enum}.${i}`));
  file.service.forEach((service, i) => {
    const name = `${file.package}.${service.name}`;
    names.set(`${FILE.service}.${i}`, name);
    service.method.forEach((method, j) => names.set(`${FILE.service}.${i}.${MEMBER}.${j}`, `${name}.${method.name}`));
  });
  return names;
}
