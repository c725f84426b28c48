import { patterns, quoted } from './quote.js';
import {
  after,
  children,
  offersAt,
  optionsByValues,
  type KnownValues,
  type WordTree,
  valuedOptions,
} from './words.js';

/** For zsh 5, with its completion system (`compinit`). */
export function zshScript(tree: WordTree): string {
  const { tool, commands } = tree;
  const name = `_${tool.replace('-', '_')}`;
  const paths = commands.filter(({ path }) => path !== '').map(({ path }) => after(path));
  const values = optionsByValues(tree).map(({ of, values }) => branch(patterns(of), offer(values)));
  const options = commands.map((command) => {
    const found = command.options.flatMap(({ names, summary }) =>
      names.map((one) => described(one, summary)),
    );
    return branch(patterns([command.path]), `found=(${found.join(' ')})`);
  });
  const words = commands.flatMap(({ path }) => places(tree, path));
  return `#compdef ${tool}
${name}() {
  local current=$words[CURRENT] command='' option='' word
  local -a found
  integer i place=0
  for ((i = 2; i < CURRENT; i++)); do
    word=$words[i]
    if [[ -n $option ]]; then
      option=''
      continue
    fi
    case "$command $word" in
      (*' --') _files; return ;;
      (${patterns(paths)}) command=\${command:+$command }$word ;;
      (${patterns(valuedOptions(tree))}) option=$word ;;
      (*' -'*) ;;
      (*) ((place++)) ;;
    esac
  done
  # "--output=json" is one word.
  if [[ -z $option && $current == --*=* ]]; then
    option=\${current%%=*}
    compset -P '*='
  fi
  if [[ -n $option ]]; then
    case "$command $option" in
${values.join('\n')}
    esac
  elif [[ $current == -* ]]; then
    case $command in
${options.join('\n')}
    esac
    _describe -o option found
  else
    case "$command $place" in
${words.join('\n')}
    esac
  fi
}
if [[ $funcstack[1] == ${name} ]]; then ${name} "$@"; else compdef ${name} ${tool}; fi
`;
}

function places(tree: WordTree, path: string): string[] {
  const below = children(tree, path);
  if (below.length > 0) {
    const found = below.map((child) => described(child.name, child.summary)).join(' ');
    return [branch(patterns([`${path} 0`]), `found=(${found}); _describe command found`)];
  }
  return offersAt(tree, path).map(({ values, place }) =>
    branch(
      place === undefined ? `${patterns([`${path} `])}*` : patterns([`${path} ${String(place)}`]),
      offer(values),
    ),
  );
}

function offer(values: KnownValues): string {
  if (values === 'files') return '_files';
  if (values === 'directories') return '_files -/';
  return `compadd -- ${values.map(quoted).join(' ')}`;
}

function branch(pattern: string, does: string): string {
  return `      (${pattern}) ${does} ;;`;
}

/** A name and its summary, which a colon separates. */
function described(name: string, summary: string): string {
  return quoted(`${name.replaceAll(':', String.raw`\:`)}:${summary}`);
}
