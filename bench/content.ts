/** Texts to compress: the same in every run, made and not kept. */

const WORDS = (
  "the of and to in is you that it he was for on are as with his they at be this have from or one had by word but not " +
  "what all were we when your can said there use an each which she do how their if will up other about out many then " +
  "them these so some her would make like him into time has look two more write go see number no way could people my " +
  "than first water been call who oil its now find long down day did get come made may part server request response"
).split(" ");

/** Numbers from 0 to 1 that repeat only after 2^32 (mulberry32). */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Rows as an API answers with them. @param bytes about how many */
export function jsonOf(bytes: number): string {
  const random = randomFrom(1);
  const below = (limit: number) => Math.floor(random() * limit);
  const words = (count: number) => Array.from({ length: count }, () => WORDS[below(WORDS.length)]).join(" ");
  const rows: string[] = [];
  for (let length = 0; length < bytes; length += rows.at(-1)?.length ?? 0) {
    rows.push(
      JSON.stringify({
        id: 100_000 + rows.length,
        name: words(2),
        email: `${words(1)}.${words(1)}@example.org`,
        active: random() < 0.7,
        score: below(100_000) / 100,
        created: new Date(1.7e12 + below(1e10)).toISOString(),
        tags: [words(1), words(1)],
        note: words(2 + below(12)),
      }),
    );
  }
  return `[${rows.join(",")}]`;
}

/** A page of list items, each with attributes and a paragraph. @param bytes about how many */
export function htmlOf(bytes: number): string {
  const random = randomFrom(2);
  const below = (limit: number) => Math.floor(random() * limit);
  const words = (count: number) => Array.from({ length: count }, () => WORDS[below(WORDS.length)]).join(" ");
  let page =
    '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>Items</title></head>\n<body>\n<ul>\n';
  for (let id = 1; page.length < bytes; id++) {
    page += `  <li class="item item-${below(8)}" id="item-${id}">\n    <a href="/items/${id}?from=${WORDS[below(WORDS.length)]}">${words(3)}</a>\n`;
    page += `    <p class="text">${words(10 + below(40))}.</p>\n  </li>\n`;
  }
  return `${page}</ul>\n</body>\n</html>\n`;
}
