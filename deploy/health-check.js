// What a container's HEALTHCHECK runs: exit code 0 when the part serves. The gateway and a
// worker are asked by GET; a service is asked for grpc.health.v1 over its Connect port.
const [url = 'http://127.0.0.1:8080/live'] = process.argv.slice(2);
const TIMEOUT_MS = 4_000;
const signal = AbortSignal.timeout(TIMEOUT_MS);
const rpc = { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}' };

try {
  const isService = url.endsWith('/grpc.health.v1.Health/Check');
  const response = await fetch(url, isService ? { ...rpc, signal } : { signal });
  const answer = await response.text();
  const serves = response.ok && (!isService || JSON.parse(answer).status === 'SERVING');
  if (!serves) console.error(`${response.status} ${answer}`);
  process.exitCode = serves ? 0 : 1;
} catch (error) {
  console.error(String(error.cause ?? error));
  process.exitCode = 1;
}
