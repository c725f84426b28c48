/**
 * Does `work` for each item, for so many at once, and gives the results in the order of the items, each as soon as it and
 * all before it are there. With one at once the next item is asked for when the result has been taken.
 */
export async function* inOrder<Item, Result>(
  items: AsyncIterable<Item>,
  atOnce: number,
  work: (item: Item) => Promise<Result>,
): AsyncGenerator<[Item, Result], void, undefined> {
  const iterator = items[Symbol.asyncIterator]();
  const underWay: { item: Item; result: Promise<Result> }[] = [];
  let asked: Promise<IteratorResult<Item>> | undefined;
  let isMore = true;
  for (;;) {
    if (isMore && underWay.length < atOnce) asked ??= iterator.next();
    const [first] = underWay;
    if (first === undefined && asked === undefined) return;
    const happened = await Promise.race([
      ...(asked === undefined ? [] : [asked.then((next) => ({ next }))]),
      ...(first === undefined ? [] : [first.result.then((result) => ({ item: first.item, result }))]),
    ]);
    if ('result' in happened) {
      underWay.shift();
      yield [happened.item, happened.result];
      continue;
    }
    asked = undefined;
    const { next } = happened;
    if (next.done === true) isMore = false;
    else {
      const result = work(next.value);
      // It is thrown when its turn has come.
      result.catch(() => undefined);
      underWay.push({ item: next.value, result });
    }
  }
}
