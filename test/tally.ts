import type { Reporter, TestCase, TestModule } from 'vitest/node';

/**
 * Closes a run with one plain line of counts. With `IOTHUB_TESTS_MAY_SKIP=no`, as CI sets it, a skipped test is a
 * failure: it names the tool that was missing, and CI is to have them all.
 */
export default class Tally implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const tests = modules.flatMap((module) => [...module.children.allTests()]);
    const [passed, failed, skipped] = (['passed', 'failed', 'skipped'] as const).map((state) =>
      tests.filter((test) => test.result().state === state),
    ) as [TestCase[], TestCase[], TestCase[]];
    const lines = [`${passed.length} passed, ${failed.length} failed, ${skipped.length} skipped`];
    if (skipped.length > 0 && process.env['IOTHUB_TESTS_MAY_SKIP'] === 'no') {
      lines.unshift(
        'no test may be skipped here, and these were:',
        ...skipped.map(({ fullName }) => `  ${fullName}`),
      );
      process.exitCode = 1;
    }
    process.stdout.write(`${lines.join('\n')}\n`);
  }
}
