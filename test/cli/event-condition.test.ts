import { expect, test } from 'vitest';

import type { HubEvent } from '../../src/amqp/event-message.js';
import { parseCondition } from '../../src/cli/service/event-condition.js';

const event: HubEvent = {
  ...{
    deviceId: 'd1',
    enqueuedAt: 0,
    partition: '0',
    offset: '10',
    sequenceNumber: 7,
    annotations: { x: 'y' },
  },
  properties: { level: 'error', 'a.b': 'c', code: '007' },
  body: Buffer.from('{"t":21.5,"fan":{"on":true,"speed":"9"},"list":[1]}'),
};

test.for([
  ['properties.level=error', true],
  ['properties.level="error"', true],
  ['properties.level != error', false],
  ['properties.a.b=c', true],
  ['annotations.x=y', true],
  ['properties.code=7', true],
  ['deviceId=d1', true],
  ['deviceId>d0', true],
  ['sequenceNumber>=7', true],
  ['sequenceNumber<7', false],
  ['offset>9', true],
  ['body.t>21', true],
  ['body.t<=21', false],
  ['body.fan.on=true', true],
  ['body.fan.speed<10', true],
  ['body.list=[1]', true],
  ['body.none=1', false],
  ['body.none!=1', true],
  ['moduleId=m', false],
  ['__proto__=1', false],
  ['body.toString!=x', true],
] as const)('%s is %s', ([text, wanted]) => {
  expect(parseCondition(text)?.(event)).toBe(wanted);
});

test('what is no condition, and a body that is no JSON', () => {
  for (const text of ['', 'level', '=3', '!=3']) expect(parseCondition(text)).toBeUndefined();
  expect(parseCondition('body.t=1')?.({ ...event, body: Buffer.from('no') })).toBe(false);
});
