// Runs tests of npm's `@durable-streams/server-conformance-tests` against a URL: those whose full names stand in
// the files, one a line. Which passed, which failed and why, and how many were left out: one JSON line.
//   node durable_conformance.mjs <url> <file of names>...
// Within vitest it is the file of tests itself.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const LONG_POLL_MS = 30_000; // how long the suite waits for the end of one; the gateway under test ends it sooner
const AT_ONCE = 4; // most of them wait

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
    testTimeout: 60_000, // a busy machine fails nothing
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
  process.exit(0); // the client's timers for aborted polls would keep it
}
