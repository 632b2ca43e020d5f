import { toBinary, type DescExtension, type DescFile, type DescMessage, type DescService } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import { Code, type ServiceImpl } from '@connectrpc/connect';
import {
  ServerReflectionV1,
  ServerReflectionV1Alpha,
  type ServerReflectionRequest,
  type ServerReflectionResponse,
} from '@mad/proto/reflection';
import { file_google_rpc_error_details } from '@mad/proto/rpc';
import { bind, type BoundService } from './bound-service.ts';

type Answer = Exclude<ServerReflectionResponse['messageResponse'], { case: undefined }>;

/** grpc.reflection v1 and v1alpha over the descriptors of `services`: tools need no .proto files. */
export function reflectionServices(services: readonly DescService[]): BoundService[] {
  const index = new DescriptorIndex(services);
  const impl: Partial<ServiceImpl<typeof ServerReflectionV1>> = {
    async *serverReflectionInfo(requests) {
      for await (const request of requests) {
        const messageResponse = index.answer(request.messageRequest);
        yield { validHost: request.host, originalRequest: request, messageResponse };
      }
    },
  };
  // The two versions differ in their package's name only.
  return [bind(ServerReflectionV1, impl), bind(ServerReflectionV1Alpha, impl as never)];
}

/** Which file declares a name. */
class DescriptorIndex {
  readonly #services: readonly DescService[];
  readonly #files = new Map<string, DescFile>();
  readonly #symbols = new Map<string, DescFile>();
  /** Extended message → field number → file. */
  readonly #extensions = new Map<string, Map<number, DescFile>>();

  constructor(services: readonly DescService[]) {
    this.#services = services;
    for (const service of services) this.#addFile(service.file);
    // Tools ask for the details of errors too, and for reflection itself.
    this.#addFile(file_google_rpc_error_details);
    for (const { file } of [ServerReflectionV1, ServerReflectionV1Alpha]) this.#addFile(file);
  }

  answer(request: ServerReflectionRequest['messageRequest']): Answer {
    switch (request.case) {
      case 'listServices': {
        const service = this.#services.map(({ typeName }) => ({ name: typeName }));
        return { case: 'listServicesResponse', value: { service } } as Answer;
      }
      case 'fileByFilename':
        return found(this.#files.get(request.value));
      case 'fileContainingSymbol':
        return found(this.#symbols.get(request.value));
      case 'fileContainingExtension': {
        const { containingType, extensionNumber } = request.value;
        return found(this.#extensions.get(containingType)?.get(extensionNumber));
      }
      case 'allExtensionNumbersOfType': {
        const extensionNumber = [...(this.#extensions.get(request.value)?.keys() ?? [])];
        const value = { baseTypeName: request.value, extensionNumber };
        return { case: 'allExtensionNumbersResponse', value } as Answer;
      }
      default:
        return failed(Code.Unimplemented, 'unknown kind of request');
    }
  }

  #addFile(file: DescFile): void {
    if (this.#files.has(file.proto.name)) return;
    this.#files.set(file.proto.name, file);
    for (const message of file.messages) this.#addMessage(message, file);
    for (const { typeName } of file.enums) this.#symbols.set(typeName, file);
    for (const extension of file.extensions) this.#addExtension(extension, file);
    for (const { typeName, methods } of file.services) {
      this.#symbols.set(typeName, file);
      for (const { name } of methods) this.#symbols.set(`${typeName}.${name}`, file);
    }
    for (const dependency of file.dependencies) this.#addFile(dependency);
  }

  #addMessage(message: DescMessage, file: DescFile): void {
    this.#symbols.set(message.typeName, file);
    for (const { name } of message.fields) this.#symbols.set(`${message.typeName}.${name}`, file);
    for (const nested of message.nestedMessages) this.#addMessage(nested, file);
    for (const { typeName } of message.nestedEnums) this.#symbols.set(typeName, file);
    for (const extension of message.nestedExtensions) this.#addExtension(extension, file);
  }

  #addExtension(extension: DescExtension, file: DescFile): void {
    this.#symbols.set(extension.typeName, file);
    const extended = extension.extendee.typeName;
    const byNumber = this.#extensions.get(extended) ?? new Map<number, DescFile>();
    this.#extensions.set(extended, byNumber.set(extension.number, file));
  }
}

/** The file with all it imports, which the caller needs to build it. */
function found(file: DescFile | undefined): Answer {
  if (!file) return failed(Code.NotFound, 'not found');
  const closure = new Set<DescFile>();
  const add = (one: DescFile): void => {
    if (closure.has(one)) return;
    closure.add(one);
    one.dependencies.forEach(add);
  };
  add(file);
  const fileDescriptorProto = [...closure].map(({ proto }) => toBinary(FileDescriptorProtoSchema, proto));
  return { case: 'fileDescriptorResponse', value: { fileDescriptorProto } } as Answer;
}

function failed(errorCode: Code, errorMessage: string): Answer {
  return { case: 'errorResponse', value: { errorCode, errorMessage } } as Answer;
}
