import { BlockList, isIP } from 'node:net';

import type { HttpProxy } from '../amqp/proxy.js';
import { AgentError } from '../errors.js';
import { Secret } from '../secret.js';

/** `http://USER:PASSWORD@HOST:PORT`, or without a scheme. Errors: `config` that names `from`, never the password. */
export function parseProxy(text: string, from: string): HttpProxy {
  const trimmed = text.trim();
  let url: URL;
  let user: string;
  try {
    url = new URL(/^[a-z][a-z0-9+.-]*:\/\//i.test(trimmed) ? trimmed : `http://${trimmed}`);
    user = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`;
  } catch {
    throw new AgentError('config', `${from} is not the URL of a proxy`, {
      hint: 'write it as http://HOST:PORT; in a user name or password : / @ are percent-encoded',
    });
  }
  const { protocol, hostname, username } = url;
  if (protocol !== 'http:' && protocol !== 'https:') {
    throw new AgentError(
      'config',
      `${from} names a ${protocol.slice(0, -1)} proxy, and only http and https are known`,
      {
        hint: 'write it as http://HOST:PORT',
      },
    );
  }
  const tls = protocol === 'https:';
  const port = Number(url.port || (tls ? 443 : 80));
  return {
    host: hostname.replace(/^\[|\]$/g, ''),
    ...{ port, tls },
    ...(username !== '' && { authorization: new Secret(`Basic ${Buffer.from(user).toString('base64')}`) }),
  };
}

type Environment = Record<string, string | undefined>;

/**
 * The proxy that the environment names for a host: `https_proxy` or `all_proxy`, in capitals too, unless `no_proxy`
 * excludes the host. This machine itself is never reached through a proxy.
 */
export function proxyFromEnvironment(env: Environment, host: string, port: number): HttpProxy | undefined {
  const [name, value] = ['https_proxy', 'HTTPS_PROXY', 'all_proxy', 'ALL_PROXY']
    .map((each) => [each, env[each] ?? ''] as const)
    .find(([, text]) => text !== '') ?? ['', ''];
  if (value === '' || isThisMachine(host) || isExcluded(env['no_proxy'] ?? env['NO_PROXY'] ?? '', host, port))
    return undefined;
  return parseProxy(value, name);
}

function isThisMachine(host: string): boolean {
  const name = host.toLowerCase().replace(/^\[|\]$/g, '');
  return (
    name === 'localhost' || name.endsWith('.localhost') || name === '::1' || /^127(\.\d+){3}$/.test(name)
  );
}

/** As curl and Go read it: names with their subdomains, addresses, ranges of them, `*`; each with a port or without. */
function isExcluded(list: string, host: string, port: number): boolean {
  const name = host.toLowerCase().replace(/\.$|^\[|\]$/g, '');
  return list
    .split(/[\s,]+/)
    .filter((entry) => entry !== '')
    .some((entry) => matches(entry.toLowerCase(), name, port));
}

function matches(entry: string, host: string, port: number): boolean {
  if (entry === '*') return true;
  const [, bare = entry, itsPort] = /^(.*?|\[.*\]):(\d+)$/.exec(isIP(entry) === 6 ? '' : entry) ?? [];
  if (itsPort !== undefined && Number(itsPort) !== port) return false;
  const pattern = bare.replace(/^\[|\]$/g, '');
  const kind = isIP(host);
  if (kind === 0) {
    const domain = pattern.replace(/^\*?\./, '').replace(/\.$/, '');
    return host === domain || host.endsWith(`.${domain}`);
  }
  const [address = '', prefix] = pattern.split('/');
  if (isIP(address) !== kind) return false;
  const bits = kind === 4 ? 32 : 128;
  if (!(Number(prefix ?? bits) <= bits)) return false;
  const range = new BlockList();
  range.addSubnet(address, Number(prefix ?? bits), kind === 4 ? 'ipv4' : 'ipv6');
  return range.check(host, kind === 4 ? 'ipv4' : 'ipv6');
}
