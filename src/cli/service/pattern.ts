/**
 * Device ids that match: `*` is any text, `?` any character. An id may have these characters too, so the text itself
 * also matches.
 */
export function patternOf(text: string): (deviceId: string) => boolean {
  const source = text
    .replace(/[.+^${}()|[\]\\]/g, String.raw`\$&`)
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  const pattern = new RegExp(`^${source}$`, 's');
  return (deviceId) => deviceId === text || pattern.test(deviceId);
}
