/**
 * Makes markup of one block; of a list or a table piece by piece, for sanitizing is what takes time.
 *
 * Knows nothing about how text grows. Invariant: an item or a row that is the same as last time is not
 * made again.
 */

/**
 * @param {(tokens: any[]) => string} html
 * @param {(html: string) => DocumentFragment} prepare from HTML to what may be shown
 * @returns {(tokens: any[]) => DocumentFragment}
 */
export function createPieces(html, prepare) {
  /** @type {Map<string, DocumentFragment>} of the last time, by their HTML */
  let kept = new Map();

  return (tokens) => {
    const used = new Map();
    const made = (token) => {
      const source = html([token]);
      if (!used.has(source)) used.set(source, kept.get(source) ?? prepare(source));
      return used.get(source).cloneNode(true);
    };
    const markup = document.createDocumentFragment();
    for (const token of tokens) markup.append(joined(parts(token).map(made)));
    kept = used;
    return markup;
  };
}

/** @returns {any[]} tokens that make one item or row each */
function parts(token) {
  if (token.type === "list" && token.items.length > 1) return token.items.map((item) => ({ ...token, items: [item] }));
  if (token.type === "table" && token.rows.length > 1) return token.rows.map((row) => ({ ...token, rows: [row] }));
  return [token];
}

/** @param {DocumentFragment[]} pieces @returns {DocumentFragment} the first, with the others' items or rows */
function joined([first, ...others]) {
  const target = first.querySelector("tbody") ?? first.firstElementChild;
  for (const other of others) target.append(...(other.querySelector("tbody") ?? other.firstElementChild).childNodes);
  return first;
}
