import { difference, isJsonObject, member, merged, type JsonObject } from './merge-patch.js';

/** One section of a twin. */
export interface TwinSection {
  /** `$version`: rises with every accepted change. */
  version: number;
  /** All but what begins with `$`. */
  properties: JsonObject;
}

/** A property that changed, with those inside it that did. */
export interface Change {
  /** Names with dots between them; no name has one. */
  path: string;
  /** Its value now; null when it is gone. */
  value: unknown;
  /** `$version` of the desired properties in which it has this value. */
  version: number;
  inside: readonly Change[];
}

/**
 * The desired properties as far as we have been told. Whatever is missed, repeated or overtaken on the way, each
 * change comes out once: notifications are taken in the order of their versions, and what was missed is found by
 * comparing a fresh read with what we knew.
 */
export class DesiredProperties {
  #known: TwinSection | undefined;

  /** Takes what was read; says what is different. After the first read that is everything. */
  read(section: TwinSection): Change[] {
    const before = this.#known?.properties ?? {};
    this.#known = section;
    return changesOf(before, difference(before, section.properties), section);
  }

  /** All that is desired, as it would come to one who has been told of nothing. */
  all(): Change[] {
    return this.#known === undefined ? [] : changesOf({}, this.#known.properties, this.#known);
  }

  /**
   * Takes a notification. `known`: we had been told of that or of later ones. `missed`: one before it did not come, or
   * nothing has been read yet; read, and nothing is lost.
   */
  notified({ version, properties: patch }: TwinSection): Change[] | 'known' | 'missed' {
    const known = this.#known;
    if (known === undefined) return 'missed';
    if (version <= known.version) return 'known';
    if (version > known.version + 1) return 'missed';
    this.#known = { version, properties: merged(known.properties, patch) };
    return changesOf(known.properties, patch, this.#known);
  }
}

/** What a patch names counts as changed though it may have had that value before: the service has set it again. */
function changesOf(
  before: JsonObject,
  patch: JsonObject,
  { version, properties }: TwinSection,
  prefix = '',
): Change[] {
  return Object.entries(patch).flatMap(([name, patched]) => {
    const former = member(before, name);
    if (former === undefined && patched === null) return [];
    const path = prefix + name;
    const value = member(properties, name) ?? null;
    const inner = isJsonObject(patched) ? patched : isJsonObject(former) ? nullsFor(former) : {};
    const inside = changesOf(
      isJsonObject(former) ? former : {},
      inner,
      { version, properties: isJsonObject(value) ? value : {} },
      `${path}.`,
    );
    return [{ path, value, version, inside }];
  });
}

function nullsFor(properties: JsonObject): JsonObject {
  return Object.fromEntries(Object.keys(properties).map((name) => [name, null]));
}

/**
 * The changes to hand on. A property goes to who takes its name, with all that is inside it; what is inside goes on
 * its own to who takes it before them, and where nobody takes the whole. `takes` names who does.
 */
export function changesToHandOn(
  changes: readonly Change[],
  takes: (change: Change) => string | undefined,
): Change[] {
  const handedOn: Change[] = [];
  /** Whether all of the change is handed on to others than `above`, who takes what it is inside of. */
  const visit = (change: Change, above: string | undefined): boolean => {
    const taker = takes(change) ?? above;
    const insideDone = change.inside.map((inner) => visit(inner, taker));
    const nothingLeft = insideDone.length > 0 && insideDone.every(Boolean);
    if (taker === above) return nothingLeft;
    if (!nothingLeft) handedOn.push(change);
    return true;
  };
  for (const change of changes) visit(change, undefined);
  return handedOn;
}
