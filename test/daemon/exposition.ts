/** A family of metrics, as the text format of Prometheus (0.0.4) has it. */
export interface Family {
  name: string;
  help: string;
  type: string;
  samples: { name: string; labels: Record<string, string>; value: number }[];
}

const sampleLine =
  /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (Na[nN]|[+-]Inf|[-+0-9.e]+)$/;

/**
 * Reads an exposition as strictly as `promtool check metrics`: each family once, with HELP and TYPE before its
 * samples, no sample twice, and names by the conventions. Throws at the first line that is wrong.
 */
export function readExposition(text: string): Map<string, Family> {
  if (!text.endsWith('\n')) throw new Error('the last line has no end');
  const families = new Map<string, Family>();
  const seen = new Set<string>();
  let family: Family | undefined;
  for (const line of text.split('\n').slice(0, -1)) {
    const [, help, helpText] = /^# HELP (\S+) (.+)$/.exec(line) ?? [];
    const [, typed, type] = /^# TYPE (\S+) (counter|gauge|histogram|summary)$/.exec(line) ?? [];
    if (line === '') continue;
    if (help !== undefined && helpText !== undefined) {
      if (families.has(help)) throw new Error(`a second family: ${line}`);
      family = { name: help, help: helpText, type: '', samples: [] };
      families.set(help, family);
    } else if (typed !== undefined && type !== undefined) {
      if (typed !== family?.name) throw new Error(`TYPE without its HELP: ${line}`);
      family.type = type;
    } else {
      const [, name, labelText = '', value] = sampleLine.exec(line) ?? [];
      if (name === undefined || family === undefined) throw new Error(`no sample: ${line}`);
      if (!belongs(name, family)) throw new Error(`a sample of another family: ${line}`);
      if (seen.has(`${name}{${labelText}}`)) throw new Error(`a second sample: ${line}`);
      seen.add(`${name}{${labelText}}`);
      family.samples.push({ name, labels: labelsOf(labelText), value: Number(value) });
    }
  }
  return families;
}

function belongs(name: string, { name: family, type }: Family): boolean {
  if (type === 'histogram') return ['_bucket', '_sum', '_count'].some((end) => name === family + end);
  return name === family;
}

function labelsOf(text: string): Record<string, string> {
  return Object.fromEntries(
    [...text.matchAll(/([a-zA-Z0-9_]+)="((?:[^"\\]|\\.)*)"/g)].map(([, name, value]) => [name!, value!]),
  );
}

/** What `promtool check metrics` would say of a name and a type. */
export function lint({ name, type }: Pick<Family, 'name' | 'type'>): string[] {
  const problems: string[] = [];
  if ((type === 'counter') !== name.endsWith('_total')) problems.push(`${name}: "_total" is for counters`);
  if (/[A-Z]|__/.test(name)) problems.push(`${name}: lower case and single underscores`);
  if (/_(milliseconds|ms|minutes|kilobytes|kb|percent)(_|$)/.test(name)) problems.push(`${name}: base units`);
  if (/_(gauge|counter|histogram|count|sum|bucket)$/.test(name)) problems.push(`${name}: ends like a type`);
  return problems;
}
