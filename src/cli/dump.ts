import { open } from 'node:fs/promises';
import { join } from 'node:path';

import { AgentError, errorText, systemErrorCode } from '../errors.js';
import type { MessageFields } from '../model.js';

/** Writes a body into a file of its own, `0001-MESSAGEID.bin`: numbered in order, with what of the message id may stand in a file name. */
export async function dumpBody(
  directory: string,
  number: number,
  { messageId = '', body }: Pick<MessageFields, 'messageId' | 'body'>,
): Promise<void> {
  const safeId = messageId.replace(/[^A-Za-z0-9_-]+/g, '_').slice(0, 64);
  for (let n = number; ; n++) {
    const file = join(directory, `${[String(n).padStart(4, '0'), safeId].filter(Boolean).join('-')}.bin`);
    try {
      await using handle = await open(file, 'wx', 0o600);
      await handle.writeFile(body);
      return;
    } catch (error) {
      // What an earlier run left is not overwritten.
      if (systemErrorCode(error) === 'EEXIST') continue;
      throw new AgentError('cannot-create', `cannot write ${file}: ${errorText(error)}`, { cause: error });
    }
  }
}
