import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import CDP from 'chrome-remote-interface';
import { build } from 'esbuild';
import { codeName, detailJson } from '../answer.ts';
import type { Answer, Call, ProtocolClient } from '../case.ts';
import { firstThatRuns } from './program.ts';
import type { PageAnswer, PageCall } from './page.ts';

/** A Chromium of this machine. */
export const chromium = (): string | undefined =>
  firstThatRuns(['chromium', 'chromium-browser', 'google-chrome'], ['--version']);

const PATH = '/page-of-the-protocol-suite';

/** connect-web in a page of the gateway's own origin, in both its protocols. */
export async function browserClients(program: string, gateway: string): Promise<ProtocolClient[]> {
  const page = await openPage(program, `http://${gateway}${PATH}`);
  const client = (protocol: PageCall['protocol'], name: string): ProtocolClient => ({
    name,
    at: 'gateway',
    parallel: 6,
    cannot({ method }) {
      if (method.parent.typeName.startsWith('grpc.')) return 'the edge has /live and /ready instead';
      if (method.methodKind.match(/client|bidi/)) return "a browser's fetch sends no stream";
      return undefined;
    },
    async call({ method, requests, headers, timeoutMs }: Call): Promise<Answer> {
      const service = method.parent.typeName;
      const said = await page.call({
        protocol,
        service,
        method: method.name,
        request: requests[0]!,
        headers,
        timeoutMs,
      });
      const details = said.details.map(({ type, value }) => detailJson(type, value));
      return { ...said, code: codeName(said.code), details };
    },
    close: () => page.close(),
  });
  return [client('connect', 'browser, Connect'), client('grpc-web', 'browser, gRPC-web')];
}

/** Starts Chromium on a page whose script the DevTools protocol puts in the place of a path the gateway does not have. */
async function openPage(
  program: string,
  url: string,
): Promise<{ call(call: PageCall): Promise<PageAnswer>; close(): Promise<void> }> {
  const { outputFiles } = await build({
    entryPoints: [join(import.meta.dirname, 'page.ts')],
    bundle: true,
    write: false,
    format: 'iife',
    logLevel: 'error',
  });
  const html = `<!doctype html><meta charset="utf-8"><script>${outputFiles[0]!.text.replaceAll('</script', String.raw`<\/script`)}</script>`;
  const profile = await mkdtemp(join(tmpdir(), 'mad-chromium-'));
  const browser = spawn(
    program,
    // Its sandbox needs privileges a container does not have; it opens nothing but our page.
    [
      '--headless=new',
      '--no-sandbox',
      '--disable-gpu',
      '--no-first-run',
      '--disable-dev-shm-usage',
      '--remote-debugging-port=0',
      `--user-data-dir=${profile}`,
      'about:blank',
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  const exited = once(browser, 'exit');
  const port = await new Promise<number>((resolve, reject) => {
    let said = '';
    browser.stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString();
      const match = /DevTools listening on ws:\/\/127\.0\.0\.1:(\d+)/.exec(said);
      if (match) resolve(Number(match[1]));
    });
    browser.once('exit', (code) => reject(new Error(`${program} ended with ${code}: ${said}`)));
  });
  const devtools = await CDP({ host: '127.0.0.1', port });
  const { Fetch, Page, Runtime } = devtools;
  await Fetch.enable({ patterns: [{ urlPattern: `*${PATH}` }] });
  Fetch.requestPaused(({ requestId }) => {
    const responseHeaders = [{ name: 'content-type', value: 'text/html' }];
    void Fetch.fulfillRequest({
      requestId,
      responseCode: 200,
      responseHeaders,
      body: Buffer.from(html).toString('base64'),
    });
  });
  await Page.enable();
  const loaded = Page.loadEventFired();
  await Page.navigate({ url });
  await loaded;

  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    await devtools.close();
    browser.kill();
    await exited;
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  };
  return {
    async call(call) {
      const expression = `call(${JSON.stringify(call)})`;
      const { result, exceptionDetails } = await Runtime.evaluate({
        expression,
        awaitPromise: true,
        returnByValue: true,
      });
      if (exceptionDetails) throw new Error(`the page failed: ${exceptionDetails.exception?.description}`);
      return result.value as PageAnswer;
    },
    close: () => (closing ??= close()),
  };
}
