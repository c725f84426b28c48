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

/** For bash 4 and later, with nothing besides. */
export function bashScript(tree: WordTree): string {
  const { tool, commands } = tree;
  const name = `_${tool.replace('-', '_')}`;
  const paths = commands.filter(({ path }) => path !== '').map(({ path }) => after(path));
  const values = optionsByValues(tree).map(({ of, values }) => branch(patterns(of), offer(name, values)));
  const options = commands.map((command) => {
    const names = command.options.flatMap((option) => option.names);
    return branch(patterns([command.path]), offer(name, names));
  });
  const words = commands.flatMap(({ path }) => places(name, tree, path));
  return `# bash completion of ${tool}
${name}() {
  local current=\${COMP_WORDS[COMP_CWORD]} command='' option='' place=0 word i
  COMPREPLY=()
  # bash takes "--output=json" apart at the "=".
  [[ $current == '=' ]] && current=''
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    [[ $word == '=' ]] && continue
    if [[ -n $option ]]; then
      option=''
      continue
    fi
    case "$command $word" in
      *' --') ${name}_files; return ;;
      ${patterns(paths)}) command=\${command:+$command }$word ;;
      ${patterns(valuedOptions(tree))}) option=$word ;;
      *' -'*) ;;
      *) ((place++)) ;;
    esac
  done
  if [[ -n $option ]]; then
    case "$command $option" in
${values.join('\n')}
    esac
  elif [[ $current == -* ]]; then
    case $command in
${options.join('\n')}
    esac
  else
    case "$command $place" in
${words.join('\n')}
    esac
  fi
}
${name}_words() { mapfile -t COMPREPLY < <(compgen -W "$*" -- "$current"); }
${name}_files() { compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$current"); }
${name}_directories() { compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$current"); }
complete -F ${name} ${tool}
`;
}

function places(name: string, tree: WordTree, path: string): string[] {
  const below = children(tree, path).map((child) => child.name);
  if (below.length > 0) return [branch(patterns([`${path} 0`]), offer(name, below))];
  return offersAt(tree, path).map(({ values, place }) =>
    branch(
      place === undefined ? `${patterns([`${path} `])}*` : patterns([`${path} ${String(place)}`]),
      offer(name, values),
    ),
  );
}

function offer(name: string, values: KnownValues): string {
  return typeof values === 'string' ? `${name}_${values}` : `${name}_words ${values.map(quoted).join(' ')}`;
}

function branch(pattern: string, does: string): string {
  return `      ${pattern}) ${does} ;;`;
}
