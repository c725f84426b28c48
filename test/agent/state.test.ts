import { expect, test } from 'vitest';

import { Lifecycle, type AgentState } from '../../src/agent/state.js';
import { AgentError } from '../../src/errors.js';

const states: Record<AgentState['state'], AgentState> = {
  connecting: { state: 'connecting', since: 0, attempt: 1 },
  online: { state: 'online', since: 0 },
  waiting: { state: 'waiting', since: 0, until: 1, attempt: 1, error: new AgentError('unavailable', 'gone') },
  draining: { state: 'draining', since: 0 },
  stopped: { state: 'stopped', since: 0 },
};

test.each([
  [
    [
      'connecting',
      'online',
      'waiting',
      'connecting',
      'waiting',
      'connecting',
      'online',
      'draining',
      'stopped',
    ],
  ],
  [['connecting', 'online', 'connecting', 'online', 'stopped']],
  [['connecting', 'waiting', 'stopped']],
  [['connecting', 'stopped']],
] as const)('the agent can live through %j', (life) => {
  const seen: string[] = [];
  const lifecycle = new Lifecycle(({ state }) => seen.push(state));
  for (const state of life) lifecycle.move(states[state]);
  expect(seen).toEqual(life);
});

test.each([
  [['online']],
  [['connecting', 'waiting', 'online']],
  [['connecting', 'online', 'draining', 'online']],
  [['connecting', 'stopped', 'connecting']],
] as const)('the last move of %j is a bug', (life) => {
  const lifecycle = new Lifecycle(() => undefined);
  for (const state of life.slice(0, -1)) lifecycle.move(states[state]);
  expect(() => {
    lifecycle.move(states[life.at(-1)!]);
  }).toThrow(/cannot go from/);
});
