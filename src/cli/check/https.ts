import { toAgentError } from '../../amqp/errors.js';
import { AgentError } from '../../errors.js';
import type { Finding } from './checks.js';
import { ask, type HttpsAnswer } from './ask-https.js';
import type { ClockReading } from './clock.js';
import { isNeeded, type Ways } from './ways.js';

/**
 * Asks the hub over HTTPS, which tells three things: whether that port is open, whether AMQP over WebSocket would work
 * there, and what time it is. Where the agent does without it, what is wrong is a warning.
 */
export async function checkHttps(
  ways: Ways,
  isDirectOpen: boolean,
  signal: AbortSignal,
): Promise<Finding<ClockReading>> {
  const { https } = ways;
  const problem = (error: AgentError, value?: ClockReading): Finding<ClockReading> => {
    const { message: detail, hint } = error;
    return isNeeded(ways, isDirectOpen)
      ? { result: 'failed', error, value }
      : { result: 'warn', detail, hint, value };
  };
  let page: HttpsAnswer;
  let webSocket: HttpsAnswer;
  try {
    [page, webSocket] = await Promise.all([ask(https, 'page', signal), ask(https, 'websocket', signal)]);
  } catch (error) {
    signal.throwIfAborted();
    return problem(aboutThisPort(toAgentError(error, https)));
  }
  const port = `port ${String(https.port)} is open`;
  const stranger = webSocket.status === 101 ? undefined : strangerOf(page, https.host);
  if (stranger !== undefined) {
    const hint = 'a captive portal or a proxy stands in between: log in there, or ask who runs the network';
    return problem(new AgentError('protocol', `${port}, but what answers is no hub: ${stranger}`, { hint }));
  }
  const value = reading(page);
  if (page.untrusted !== undefined) {
    // That is for the check of TLS to judge, where the agent goes this way.
    const detail = `${port}; its certificate is not trusted (${page.untrusted})`;
    return { result: 'warn', detail, value };
  }
  if (webSocket.status !== 101) {
    const what = `${port}; AMQP over WebSocket is refused there (HTTP ${String(webSocket.status)})`;
    return problem(new AgentError('protocol', what), value);
  }
  const facts = { port: https.port, status: page.status, webSocket: webSocket.status, server: page.server };
  return { result: 'ok', detail: `${port}; AMQP over WebSocket is possible there`, value, facts };
}

/** The usual hint is about the port of AMQP. */
function aboutThisPort(error: AgentError): AgentError {
  const { code, message, condition, hint, cause } = error;
  return hint?.includes('5671') === true ? new AgentError(code, message, { condition, cause }) : error;
}

/** What an answer says that no hub would say. */
function strangerOf({ status, contentType, location }: HttpsAnswer, host: string): string | undefined {
  if (status === 511) return 'it wants a login to the network (HTTP 511)';
  if (status >= 300 && status < 400 && location !== undefined && !location.includes(`//${host}`))
    return `it sends us to ${location}`;
  if (contentType.startsWith('text/html')) return `a web page (HTTP ${String(status)}, ${contentType})`;
  return undefined;
}

function reading({ date, askedAt, answeredAt, untrusted }: HttpsAnswer): ClockReading | undefined {
  if (Number.isNaN(date)) return undefined;
  // The header is cut to the second: half of one is the best guess.
  return { theirs: date + 500, ours: (askedAt + answeredAt) / 2, isTrusted: untrusted === undefined };
}
