import type { EventKind } from '../../handlers/contract.js';

/** What a new handler begins as: it works, and says in comments what can be changed. */

export type Language = 'sh' | 'js' | 'py';

export function skeletonOf(language: Language, on: EventKind, name: string): string {
  return { sh: shell, js: module, py: python }[language](on, name);
}

const subjects: Record<EventKind, string> = {
  command: 'a cloud-to-device command',
  method: 'a direct method',
  twin: 'a desired property',
};

const printed: Record<EventKind, string> = {
  command: 'What it prints goes back as telemetry, if the configuration says reply = true.',
  method: 'What it prints is the payload of the answer, as JSON.',
  twin: 'What it prints is merged into the reported properties, as JSON.',
};

const codes: Record<EventKind, string> = {
  command: '0 accept, 75 later, 65 and most others reject',
  method: '0 is status 200, 65 is 400, 75 is 503, most others are 500',
  twin: '0 acknowledges with 200, 65 with 400; 75 is tried again',
};

function shell(on: EventKind, name: string): string {
  return `#!/bin/sh
# ${name}: handles ${subjects[on]}.
#
# The body is on standard input, the rest in variables: \${IOTHUB_MESSAGE_ID}, \${IOTHUB_PROP_NAME} …
# Its exit code says what came of it: ${codes[on]}.
# The last line on standard error is the reason. ${printed[on]}
set -eu

body=$(cat)
if [ -z "$body" ]; then
  echo "the body is empty" >&2
  exit 65
fi

echo "attempt $IOTHUB_ATTEMPT with \${#body} characters" >&2
${on === 'twin' ? '' : `printf '{"handled":"%s"}\\n' "$IOTHUB_HANDLER"\n`}`;
}

function python(on: EventKind, name: string): string {
  return `#!/usr/bin/env python3
"""${name}: handles ${subjects[on]}.

The body is on standard input, the rest in variables: IOTHUB_MESSAGE_ID, IOTHUB_PROP_NAME …
Its exit code says what came of it: ${codes[on]}.
The last line on standard error is the reason. ${printed[on]}
"""
import json
import os
import sys

EX_DATAERR = 65
EX_TEMPFAIL = 75


def main() -> int:
    try:
        body = json.load(sys.stdin)
    except ValueError as error:
        print(f"the body is not JSON: {error}", file=sys.stderr)
        return EX_DATAERR
    try:
        print(f"attempt {os.environ['IOTHUB_ATTEMPT']} with {body}", file=sys.stderr)
    except OSError as error:
        print(f"try again: {error}", file=sys.stderr)
        return EX_TEMPFAIL
${on === 'twin' ? '' : '    json.dump({"handled": os.environ["IOTHUB_HANDLER"]}, sys.stdout)\n'}    return 0


sys.exit(main())
`;
}

const handlerTypes: Record<EventKind, string> = {
  command: 'CommandHandler',
  method: 'MethodHandler',
  twin: 'TwinHandler',
};

const moduleBodies: Record<EventKind, string> = {
  command: `  handle(command, { log, attempt }) {
    const body = command.json(); // not JSON: rejected
    log.info('handled', { attempt, body });
    // command.reject('why') is no, for good; command.release('why') is later. Nothing returned is accept.
    return command.accept({ reply: { handled: command.messageId } });
  },`,
  method: `  handle(method, { log }) {
    const payload = method.json(); // not JSON: status 400
    log.info('called', { method: method.method, payload });
    return method.respond(200, { handled: method.method });
  },`,
  twin: `  handle(change, { log }) {
    const value = change.json();
    log.info('changed', { path: change.path, version: change.version, value });
    return change.acknowledge(200, { description: 'done' });
  },`,
};

function module(on: EventKind, name: string): string {
  return `// ${name}: handles ${subjects[on]}. It runs inside the agent, so it is trusted code.
//
// What it throws is no, with the error's message; a RetryLater or a bug (TypeError …) is later.

/** @type {import('iothub-device/handler').${handlerTypes[on]}} */
export default {
  on: '${on}',
${moduleBodies[on]}
};
`;
}
