import {
  getOption,
  hasOption,
  type DescField,
  type DescMessage,
  type DescMethod,
  type DescService,
} from '@bufbuild/protobuf';
import { accessRuleOf } from '@mad/auth';
import { Audience } from '@mad/proto/access';
import { http, type HttpRule } from '@mad/proto/http';
import { cursorOf, type StreamCursor } from './cursor.ts';
import { downloadOf, type Download } from './download.ts';
import { parsePathTemplate, type PathTemplate } from './path-template.ts';

/** One REST route of one RPC, from its `google.api.http` annotation. */
export interface Binding {
  method: DescMethod;
  httpMethod: string;
  /** The template as annotated. */
  path: string;
  template: PathTemplate;
  /** `*`: the body is the whole request; a field's name: that field; empty: no body. */
  body: string;
  /** How the stream is resumed, where it can be. */
  cursor: StreamCursor | undefined;
  /** The file the stream is, where it is one. */
  download: Download | undefined;
}

/** Whether people outside may call a method: what only services may call is not served here at all. */
export function isForOutside(method: DescMethod): boolean {
  const rule = accessRuleOf(method);
  return rule !== undefined && rule.audience !== Audience.SERVICE;
}

/** The routes of a service. Throws at start-up on an annotation that cannot be served, never per request. */
export function bindingsOf(service: DescService): Binding[] {
  return service.methods.flatMap((method) => {
    if (!hasOption(method, http)) return [];
    const rule = getOption(method, http);
    return [rule, ...rule.additionalBindings].map((one) => bindingOf(method, one));
  });
}

function bindingOf(method: DescMethod, rule: HttpRule): Binding {
  const { pattern } = rule;
  if (pattern.case === undefined || pattern.case === 'custom') throw new Error(`${method.toString()}: no HTTP method`);
  if (method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming') {
    throw new Error(`${method.toString()}: a request stream has no REST form`);
  }
  if (!isForOutside(method)) throw new Error(`${method.toString()}: only services may call it`);
  const template = parsePathTemplate(pattern.value);
  for (const variable of template.variables) {
    if (!fieldsOf(method.input, variable.field)) throw new Error(`${method.toString()}: no field ${variable.field}`);
  }
  if (rule.body && rule.body !== '*' && !fieldOf(method.input, rule.body)) {
    throw new Error(`${method.toString()}: no field ${rule.body}`);
  }
  const httpMethod = pattern.case.toUpperCase();
  return {
    method,
    httpMethod,
    path: pattern.value,
    template,
    body: rule.body,
    cursor: cursorOf(method),
    download: downloadOf(method),
  };
}

/** The field of a message by its proto name or its JSON name. */
export function fieldOf(message: DescMessage, name: string): DescField | undefined {
  return message.fields.find((field) => field.name === name || field.jsonName === name);
}

/** The fields along a dotted path, outermost first; undefined when one does not exist. */
export function fieldsOf(message: DescMessage, path: string): DescField[] | undefined {
  const fields: DescField[] = [];
  let current: DescMessage | undefined = message;
  for (const name of path.split('.')) {
    const field: DescField | undefined = current && fieldOf(current, name);
    if (!field) return undefined;
    fields.push(field);
    current = field.fieldKind === 'message' ? field.message : undefined;
  }
  return fields;
}
