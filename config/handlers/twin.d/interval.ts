// A desired property as a module in TypeScript (Node 22.18 or later runs it as it is; before that compile it).
//
//   iothub-service twin set dev1 '{"interval": 30}'
//
// What it acknowledges is reported as {"interval": {"value": 30, "ac": 200, "av": <version>, "ad": "…"}}.
import type { TwinHandler } from 'iothub-device/handler';

export const current = { intervalSeconds: 60 };

export default {
  on: 'twin',
  handle(change, { log }) {
    const seconds = change.json();
    if (typeof seconds !== 'number' || seconds < 1 || seconds > 3600) {
      return change.acknowledge(400, { description: 'between 1 and 3600 seconds' });
    }
    current.intervalSeconds = seconds;
    log.info('interval changed', { seconds, version: change.version });
    return change.acknowledge(200, { description: `every ${seconds} s` });
  },
} satisfies TwinHandler;
