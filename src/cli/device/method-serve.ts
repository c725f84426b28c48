import { serveMethods, type AnsweredMethod } from '../../agent/methods.js';
import type { MethodEvent } from '../../handlers/contract.js';
import { visible } from '../../visible.js';
import type { Io } from '../io.js';
import { jsonOnOneLine } from '../json-text.js';
import { columns, createPrinter, type Printable } from '../output.js';
import type { DeviceHub } from './hub.js';
import type { MakeAnswers } from './method-answers.js';
import type { MethodFlags } from './method.js';
import { stayOnline } from './stay-online.js';

/**
 * Answers methods until the flags or a signal say stop. A call is printed with its answer once the caller has it;
 * with `--stdin` when it arrives, for whoever has to answer.
 */
export async function serveNamedMethods(
  io: Io,
  hub: DeviceHub,
  flags: MethodFlags,
  makeAnswers: MakeAnswers,
): Promise<void> {
  const printer = createPrinter(io, flags);
  let printed: Promise<void> = Promise.resolve();
  const print = (line: Printable): void => {
    printed = printed.then(() => printer.print(line));
  };
  const ended = new AbortController();
  await using answers = makeAnswers({
    io,
    log: hub.log,
    onCall: (call) => {
      print(callLine(call));
    },
    onEnd: () => {
      ended.abort();
    },
  });
  io.stop.addEventListener('abort', () => void answers.drain(io.now));
  try {
    await stayOnline(
      io,
      hub,
      { ...flags, until: ended.signal },
      (stay) => (session) =>
        serveMethods(session, answers, {
          ...stay,
          onServing: stay.begun,
          onAnswered: (answered) => {
            if (stay.happened() && flags.stdin !== true) print(answerLine(answered));
          },
        }),
    );
  } finally {
    await printed;
  }
}

/** `{"requestId":"…","method":"reboot","payload":{"in":5},"status":200,"answer":{"ok":true},"ms":3}` */
function answerLine({ request, status, payload, ms }: AnsweredMethod): Printable {
  const call = callLine({ ...request, body: request.payload });
  const answer = payload.toString('utf8');
  return {
    json: () =>
      jsonOnOneLine(`${call.json().slice(0, -1)},"status":${status},"answer":${answer},"ms":${ms}}`),
    text: ({ columns: limit }) => {
      const said = [request.payload.toString('utf8'), '→', answer].join(' ');
      return columns([visible(request.method), String(status), `${ms} ms`, visible(said)], [16, 3, 6], limit);
    },
  };
}

/** The payload is put in as it was written: parsing and printing it would change its numbers. */
function callLine({
  requestId,
  method,
  body,
}: Pick<MethodEvent, 'requestId' | 'method' | 'body'>): Printable {
  const payload = body.toString('utf8');
  return {
    json: () => jsonOnOneLine(`${JSON.stringify({ requestId, method }).slice(0, -1)},"payload":${payload}}`),
    text: ({ columns: limit }) =>
      columns([visible(method), requestId ?? '', visible(payload)], [16, 36], limit),
  };
}
