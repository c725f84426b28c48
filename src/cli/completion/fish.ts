import {
  after,
  children,
  offersAt,
  type OptionWords,
  type Values,
  type WordTree,
  valuedOptions,
} from './words.js';

/** For fish 3. */
export function fishScript(tree: WordTree): string {
  const { tool, commands } = tree;
  const at = `__${tool.replace('-', '_')}_at`;
  const paths = commands.filter(({ path }) => path !== '').map(({ path }) => after(path));
  const offers = commands.flatMap(({ path, options }) => [
    ...options.map((option) => `-n ${quoted(`${at} ${quoted(path)}`)} ${optionOf(option)}`),
    ...places(tree, path).map(({ place, does }) => {
      const where = place === undefined ? '' : ` ${String(place)}`;
      return `-n ${quoted(`${at} ${quoted(path)}${where}`)} ${does}`;
    }),
  ]);
  return `# fish completion of ${tool}
# Whether the words before the cursor lead to a command (or to "--") and, if it is named, to a place after it.
function ${at} --argument-names wanted wanted_place
    set -l command ''
    set -l option ''
    set -l place 0
    for word in (commandline -opc)[2..-1]
        if test -n "$option"
            set option ''
            continue
        end
        switch "$command $word"
            case '* --'
                test "$wanted" = --
                return
            case ${list(paths)}
                set command (string trim -- "$command $word")
            case ${list(valuedOptions(tree))}
                set option $word
            case '* -*'
            case '*'
                set place (math $place + 1)
        end
    end
    test "$command" = "$wanted"; and test -z "$wanted_place" -o "$place" = "$wanted_place"
end
complete -c ${tool} -e
complete -c ${tool} -f
complete -c ${tool} -n '${at} --' -F
${offers.map((offer) => `complete -c ${tool} ${offer}`).join('\n')}
`;
}

function optionOf({ names, summary, value }: OptionWords): string {
  const flags = names.map((name) => (name.startsWith('--') ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`));
  return [...flags, ...(value === undefined ? [] : [optionValue(value)]), `-d ${quoted(summary)}`].join(' ');
}

function optionValue(values: Values): string {
  if (values === 'files') return '-r -F';
  return values === 'any' ? '-x' : `-x -a ${argument(values)}`;
}

function places(tree: WordTree, path: string): { place: number | undefined; does: string }[] {
  const below = children(tree, path);
  if (below.length > 0) {
    return below.map(({ name, summary }) => ({ place: 0, does: `-a ${quoted(name)} -d ${quoted(summary)}` }));
  }
  return offersAt(tree, path).map(({ values, place }) => ({
    place,
    does: values === 'files' ? '-F' : `-a ${argument(values)}`,
  }));
}

function argument(values: Values): string {
  return values === 'directories' ? `'(__fish_complete_directories)'` : quoted([values].flat().join(' '));
}

function list(texts: readonly string[]): string {
  return texts.map(quoted).join(' ');
}

function quoted(text: string): string {
  return `'${text.replace(/[\\']/g, String.raw`\$&`)}'`;
}
