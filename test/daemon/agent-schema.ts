import { toJsonSchema } from '@valibot/to-json-schema';
import { format } from 'prettier';

import { configSchema } from '../../src/daemon/config-schema.js';

/** The text of `config/agent.schema.json`: what editors check and complete a configuration file with. */
export function agentSchemaText(): Promise<string> {
  // Durations are text in a file; what becomes of them does not concern an editor.
  const schema = toJsonSchema(configSchema, { typeMode: 'input', target: 'draft-07', errorMode: 'ignore' });
  const named = { ...schema, title: 'Configuration of iothub-device run' };
  return format(JSON.stringify(named), { parser: 'json', printWidth: 110 });
}
