import { AgentError } from '../../../errors.js';
import { variable } from '../../variables.js';

/** The file that was named on the command line or in the environment. */
export function needed(file: string | undefined): string {
  if (file !== undefined) return file;
  throw new AgentError('usage', 'which certificate?', {
    hint: `name its file, or set ${variable('device', 'CERT')}`,
  });
}
