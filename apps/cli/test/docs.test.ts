import { existsSync, globSync, readFileSync, statSync } from 'node:fs';
import { dirname, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';
import type { Command } from 'commander';
import { EXIT } from '../src/failure.ts';
import { program } from '../src/program.ts';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../../..');
const read = (path: string): string => readFileSync(resolve(root, path), 'utf8');
const PAGES = globSync(['*.md', 'docs/**/*.md', 'deploy/**/*.md', 'bench/**/*.md'], {
  cwd: root,
  exclude: (name) => name.includes('node_modules'),
}).sort();

const FENCED = /^ *```.*\n([\s\S]*?)^ *```/gm;
const INLINE = /`([^`\n]+)`/g;

/** A page without its code blocks, where what looks like a link or a heading is none. */
const prose = (text: string): string => text.replace(FENCED, '');

/** What GitHub makes of a heading; a repeated one gets a number. */
function anchorsOf(text: string): Set<string> {
  const seen = new Map<string, number>();
  const anchors = [...prose(text).matchAll(/^#{1,6} (.+)$/gm)].map((match) => {
    const slug = match[1]!
      .trim()
      .toLowerCase()
      .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
      .replace(/[^\p{L}\p{N}\p{M}_ -]/gu, '')
      .replaceAll(' ', '-');
    const times = seen.get(slug) ?? 0;
    seen.set(slug, times + 1);
    return times === 0 ? slug : `${slug}-${times}`;
  });
  return new Set(anchors);
}

/** The links of a page that lead nowhere. */
function brokenLinks(page: string, text: string): string[] {
  const links = [
    ...prose(text)
      .replace(INLINE, '')
      .matchAll(/\]\(([^)\s]+)\)/g),
  ].map((match) => match[1]!);
  return links.filter((link) => {
    if (/^[a-z]+:/.test(link)) return false;
    const [path, anchor] = link.split('#') as [string, string | undefined];
    const target = path === '' ? resolve(root, page) : resolve(root, dirname(page), path);
    if (!existsSync(target)) return true;
    if (anchor === undefined) return false;
    return !statSync(target).isFile() || !anchorsOf(readFileSync(target, 'utf8')).has(anchor);
  });
}

/** Lines of code: of blocks, without what is printed where the block shows prompts, and inline. */
function codeOf(text: string): string[] {
  const blocks = [...text.matchAll(FENCED)].flatMap((match) => {
    const lines = match[1]!.split('\n').map((line) => line.trim());
    const typed = lines.filter((line) => line.startsWith('$ '));
    return typed.length > 0 ? typed.map((line) => line.slice(2)) : lines;
  });
  return [...blocks, ...[...prose(text).matchAll(INLINE)].map((match) => match[1]!)];
}

const WORD = /^[a-z][a-z-]*$/;
/** The words behind every call of a program in a line, up to what is no word of a command. */
function callsOf(line: string, name: 'mad' | 'make'): string[][] {
  // There `mad` is the image.
  if (line.startsWith('docker run ')) return [];
  const place = name === 'mad' ? /(?:^|[\s(])(?:npx )?mad +([^|;)&>#]*)/g : /(?:^|[\s(])make +([^|;)&>#]*)/g;
  return [...line.matchAll(place)].map((match) => {
    const words = match[1]!
      .trim()
      .replace(/^(?:--(?:json|(?:org|url|home) \S+) +)+/, '')
      .split(/\s+/);
    const end = words.findIndex((word) => !WORD.test(word));
    return end < 0 ? words : words.slice(0, end);
  });
}

/** Whether the words begin with a command; what comes behind a command without subcommands is its own. */
function isCommand(words: readonly string[], at: Command): boolean {
  if (at.commands.length === 0 || words.length === 0) return true;
  const next = at.commands.find((one) => one.name() === words[0] || one.aliases().includes(words[0]!));
  return next !== undefined && isCommand(words.slice(1), next);
}

const verbs = new Set([...read('Makefile').matchAll(/^([a-z-]+):/gm)].map((match) => match[1]!));
const wrongMad = (text: string): string[][] =>
  codeOf(text)
    .flatMap((line) => callsOf(line, 'mad'))
    .filter((words) => !isCommand(words, program({})));
const wrongMake = (text: string): string[] =>
  codeOf(text)
    .flatMap((line) => callsOf(line, 'make').map((words) => words[0]))
    .filter((verb) => verb !== undefined && !verbs.has(verb)) as string[];

/** The first cells of the rows of the table that stands below a heading. */
function firstCells(text: string, heading: string): string[] {
  const section = text.split(new RegExp(`^## ${heading}$`, 'm'))[1]!.split(/^## /m)[0]!;
  return [...section.matchAll(/^\| `?([A-Za-z0-9_]+)`? \|/gm)].map((match) => match[1]!).slice(1);
}

test.each(PAGES)('links of %s lead somewhere', (page) => {
  expect(brokenLinks(page, read(page))).toEqual([]);
});

test.each(PAGES)('commands named in %s exist', (page) => {
  expect({ mad: wrongMad(read(page)), make: wrongMake(read(page)) }).toEqual({ mad: [], make: [] });
});

test('every page of docs can be reached from its index', () => {
  const reached = new Set<string>();
  const visit = (page: string): void => {
    if (reached.has(page)) return;
    reached.add(page);
    for (const [, link] of prose(read(page)).matchAll(/\]\(([^)#\s]+\.md)(?:#[^)]*)?\)/g)) {
      const target = relative(root, resolve(root, dirname(page), link!));
      if (PAGES.includes(target)) visit(target);
    }
  };
  visit('docs/README.md');
  expect(PAGES.filter((page) => page.startsWith('docs/') && !reached.has(page))).toEqual([]);
});

test('the metrics of the monitoring page are those of the sources', () => {
  const sources = globSync('{apps,libs,services}/*/src/**/*.ts', { cwd: root }).map(read);
  const made = sources.flatMap((source) =>
    [...source.matchAll(/\.(?:counter|gauge|histogram)(?:<[^>]*>)?\(\{\s*name: '([a-z0-9_]+)'/g)].map((m) => m[1]!),
  );
  const listed = firstCells(read('docs/management/monitoring.md'), 'Metrics');
  expect(listed.toSorted()).toEqual([...new Set(made)].sort());
});

test('the reasons of the page of errors are those of the vocabulary, in its order', () => {
  const known = [...read('libs/rpc/src/reasons.ts').matchAll(/\| '([A-Z_]+)'/g)].map((match) => match[1]!);
  expect(firstCells(read('docs/api/errors.md'), 'Reasons')).toEqual(known);
});

test('the exit codes of the page of errors are those of the command line', () => {
  const listed = firstCells(read('docs/api/errors.md'), 'Exit codes of `mad`').map(Number);
  expect(listed).toEqual(Object.values(EXIT));
});

describe('what is wrong is found', () => {
  test.each([
    ['[x](nowhere.md)', ['nowhere.md']],
    ['[x](README.md#no-such-part)', ['README.md#no-such-part']],
    ['## A part: of it\n[x](#a-part-of-it) [y](#other)', ['#other']],
    ['```\n[x](nowhere.md)\n```', []],
  ])('among the links of %j', (text, broken) => {
    expect(brokenLinks('new.md', text).filter((link) => link !== '#a-part-of-it')).toEqual(broken);
  });

  test.each([
    ['`mad job shwo`', [['job', 'shwo']]],
    ['```\n$ npx mad --json frobnicate x\nmad nothing\n```', [['frobnicate', 'x']]],
    ['```\n$ echo x | npx mad shell --org acme\n```', []],
    ['`mad org create acme`, `mad db`', []],
  ])('among the commands of %j', (text, wrong) => {
    expect(wrongMad(text)).toEqual(wrong);
  });

  test('among the verbs of make', () => {
    expect(wrongMake('`make up`, `make it-so`\n```\nMAD_HOME=x make dwon\n```')).toEqual(['dwon', 'it-so']);
  });
});
