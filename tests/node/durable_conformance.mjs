// Runs tests of npm's `@durable-streams/server-conformance-tests` against a URL: the tests whose full names
// are in the files, one in each line. Prints one JSON line: the passed tests, the failed tests with reasons,
// and the number of omitted tests.
//   node durable_conformance.mjs <url> <file of names>...
// Inside vitest this file is the test file itself.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const LONG_POLL_MS = 30_000; // the suite's wait for the end of a long poll; the gateway's is shorter
const AT_ONCE = 4; // most tests only wait

if (process.env.VITEST) {
  const { runConformanceTests } = await import('@durable-streams/server-conformance-tests');
  runConformanceTests({ baseUrl: process.env.CONFORMANCE_TEST_URL, longPollTimeoutMs: LONG_POLL_MS });
} else {
  const { startVitest } = await import('vitest/node');
  const [url, ...files] = process.argv.slice(2);
  process.env.CONFORMANCE_TEST_URL = url;
  const names = files.flatMap((file) => readFileSync(file, 'utf8').split('\n'));
  const escaped = names
    .filter((name) => name && !name.startsWith('#'))
    .map((name) => name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  const vitest = await startVitest('test', [], {
    include: [fileURLToPath(import.meta.url)],
    testNamePattern: `^(${escaped.join('|')})$`,
    sequence: { concurrent: true },
    maxConcurrency: AT_ONCE,
    testTimeout: 60_000, // so that a busy machine fails no test
    watch: false,
    cache: false,
    reporters: [{ onInit() {} }],
  });
  const told = { passed: [], failed: {}, others: 0 };
  for (const module of vitest.state.getTestModules()) {
    for (const test of module.children.allTests()) {
      const { state, errors } = test.result();
      const name = test.fullName.replaceAll(' > ', ' ');
      if (state === 'passed') told.passed.push(name);
      else if (state === 'failed') told.failed[name] = errors.map((error) => error.message).join('; ');
      else told.others += 1;
    }
  }
  await vitest.close();
  console.log(JSON.stringify(told));
  process.exit(0); // the client's timers for aborted polls would keep the process alive
}
