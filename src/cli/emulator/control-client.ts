import { Option } from 'commander';

import { AgentError, errorText } from '../../errors.js';
import type { Subcommand } from '../help.js';
import { variable } from '../variables.js';

/** What `addUrlOption` leaves in a command's flags. */
export interface UrlFlags {
  url: string;
}

/** Where the emulator's control is. */
export function addUrlOption(command: Subcommand): Subcommand {
  return command.addOption(
    new Option('--url <url>', 'control address of the emulator')
      .default('http://127.0.0.1:8080')
      .env(variable('emulator', 'URL')),
  );
}

export interface Call {
  method?: 'GET' | 'POST' | 'PATCH' | 'DELETE';
  body?: object;
  signal?: AbortSignal;
}

/** Asks the emulator, and gives the text of its answer. */
export async function control({ url }: UrlFlags, path: string, call: Call = {}): Promise<string> {
  const { method = 'GET', body, signal } = call;
  let response: Response;
  try {
    response = await fetch(new URL(path, url), {
      method,
      headers: { 'content-type': 'application/json' },
      ...(body && { body: JSON.stringify(body) }),
      ...(signal && { signal }),
    });
  } catch (error) {
    throw new AgentError('unavailable', `no emulator answers at ${url}: ${errorText(error)}`, {
      cause: error,
      hint: `start one with iothub-emulator start, or set ${variable('emulator', 'URL')}`,
    });
  }
  const text = await response.text();
  if (response.ok) return text;
  throw new AgentError(
    response.status === 404 ? 'no-device' : 'data',
    `the emulator refused: ${errorOf(text)}`,
  );
}

function errorOf(text: string): string {
  try {
    return String((JSON.parse(text) as { error?: unknown }).error);
  } catch {
    return text;
  }
}
