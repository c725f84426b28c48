import { Argument } from 'commander';

import { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import type { ToolName } from '../subcommands.js';
import type { WordTree } from './words.js';

/** How a shell is told: the script, and the line that puts it where the shell looks. */
interface Shell {
  load: () => Promise<(tree: WordTree) => string>;
  install: (tool: ToolName) => string;
}

const shells = {
  bash: {
    load: async () => (await import('./bash.js')).bashScript,
    install: (tool) =>
      `${tool} completion bash > ~/.local/share/bash-completion/completions/${tool}    # with bash-completion`,
  },
  zsh: {
    load: async () => (await import('./zsh.js')).zshScript,
    install: (tool) => `${tool} completion zsh > ~/.zfunc/_${tool}    # a directory of your fpath`,
  },
  fish: {
    load: async () => (await import('./fish.js')).fishScript,
    install: (tool) => `${tool} completion fish > ~/.config/fish/completions/${tool}.fish`,
  },
} satisfies Record<string, Shell>;

/** `completion` of each tool: a script that completes its commands, options and their values. */
export function completionCommand(tool: ToolName): (io: Io) => Subcommand {
  return (io) =>
    new Subcommand('completion')
      .description(
        'Print a script that completes commands, options and their values in a shell. It starts nothing when it completes; make it anew after an update.',
      )
      .examples(
        `source <(${tool} completion bash)    # in this shell, or in ~/.bashrc`,
        ...Object.values(shells).map(({ install }) => install(tool)),
      )
      .exits('ok', 'usage')
      .addArgument(new Argument('<shell>', 'which').choices(Object.keys(shells)))
      .action(async (shell: keyof typeof shells) => {
        const { wordTree } = await import('./words.js');
        const script = await shells[shell].load();
        await io.stdout.write(script(await wordTree(tool, io)));
      });
}
