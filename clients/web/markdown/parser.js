/**
 * Markdown as chats need it: GFM with maths, Korean particles next to emphasis and addresses, and HTML as text.
 *
 * Knows nothing about the DOM. Invariant: no tag of the text reaches the HTML, save a few without attributes;
 * what comes out is sanitized all the same.
 */

import { escapeHtml } from "./escape.js";
import { formulaExtensions } from "./formulas.js";

/** Tags that models write into tables and units; with attributes they are text like every other one. */
const PLAIN_TAG = /^<\/?(?:br|sub|sup|kbd|u|mark) ?\/?>/i;

/**
 * Strong text wherever it is meant: CommonMark wants a space or punctuation around delimiters that touch
 * punctuation, and Korean particles follow without one: **"강조"**는.
 */
const STRONG = /^\*\*(?![\s*])((?:`[^`\n]{1,500}`|\\[^]|(?!\*\*|\n\s*\n)[^\\]){1,2000}?)(?<![\s\\])\*\*(?!\*)/;
const EMPHASIS_BEFORE_HANGUL = /^\*(?![\s*])((?:\\[^]|[^*\\\n]){1,500}?)(?<=["'”’)\]}.,!?%>」』])\*(?=[가-힣])/;

/** "https://example.com을": what follows an ASCII address as a particle is not part of it. */
const PARTICLE =
  /(?<=[\w/)=&#-])(?:입니다|이에요|예요|에서는|에서도|으로도|에서|에게|으로|까지|부터|처럼|에는|에도|이나|이고|은|는|이|가|을|를|에|로|와|과|의|도|만|나)[.,!?]*$/;

/**
 * @typedef {object} Parser `links` are definitions such as [1]: https://… that earlier blocks have brought;
 *   those of the result are all that are known then
 * @property {(text: string, links?: object) => any[]} outline blocks without what is in their lines: cheap
 * @property {(text: string, links?: object, lines?: Map<string, any[]>) => any[]} lex blocks with all that is in
 *   them; lines that are in `lines` are not read again, new ones are added
 * @property {(tokens: any[]) => string} html
 *
 * @param {{ Marked: any, Tokenizer: any }} library marked's module
 * @param {{ imageLabel: (name: string) => string }} words
 * @returns {Parser}
 */
export function createParser({ Marked, Tokenizer }, { imageLabel }) {
  const marked = new Marked({
    gfm: true,
    breaks: true,
    tokenizer: tokenizer(Tokenizer),
    renderer: renderer(imageLabel),
    extensions: [strong("strongNextToHangul", STRONG, "strong"), strong("emNextToHangul", EMPHASIS_BEFORE_HANGUL, "em")],
  });
  marked.use({ extensions: formulaExtensions() });
  function outlined(text, links) {
    const lexer = new marked.Lexer(marked.defaults);
    Object.assign(lexer.tokens.links, links);
    lexer.blockTokens(text, lexer.tokens);
    return lexer;
  }
  return {
    outline: (text, links = {}) => outlined(text, links).tokens,
    lex(text, links = {}, lines = new Map()) {
      const lexer = outlined(text, links);
      for (const { src, tokens } of lexer.inlineQueue) {
        if (!lines.has(src)) lines.set(src, lexer.inlineTokens(src));
        tokens.push(...lines.get(src));
      }
      return lexer.tokens;
    },
    html: (tokens) => marked.parser(tokens),
  };
}

/** @param {any} Tokenizer marked's own @returns {object} what is read in another way than marked does */
function tokenizer(Tokenizer) {
  const none = () => undefined;
  return {
    html: none,
    tag(source) {
      const match = PLAIN_TAG.exec(source);
      return match ? { type: "html", raw: match[0], text: match[0], block: false } : undefined;
    },
    // One tilde is a range in Korean: 1~3명, 5~7명.
    del(source, ...rest) {
      return source.startsWith("~~") ? Tokenizer.prototype.del.call(this, source, ...rest) : undefined;
    },
    url(source) {
      const token = Tokenizer.prototype.url.call(this, source);
      const particle = token && PARTICLE.exec(token.raw);
      if (!particle) return token;
      const raw = token.raw.slice(0, particle.index);
      const href = token.href.slice(0, token.href.length - (token.raw.length - raw.length));
      return { ...token, raw, text: raw, href, tokens: [{ type: "text", raw, text: raw }] };
    },
  };
}

/** @param {(name: string) => string} imageLabel @returns {object} what is written in another way than marked does */
function renderer(imageLabel) {
  return {
    // An image would be fetched from wherever the model says: its address is told instead.
    image({ href, text }) {
      return `<a href="${escapeHtml(href)}">${escapeHtml(imageLabel(text || href))}</a>`;
    },
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    code({ text, lang }) {
      const language = /^[\w+#.-]+/.exec(lang ?? "")?.[0].toLowerCase();
      const attribute = language ? ` class="language-${escapeHtml(language)}"` : "";
      return `<pre><code${attribute}>${escapeHtml(text)}\n</code></pre>\n`;
    },
  };
}

/** @returns {object} an inline extension that makes `type` of what the first group of `pattern` holds */
function strong(name, pattern, type) {
  return {
    name,
    level: "inline",
    tokenizer(source) {
      const match = pattern.exec(source);
      if (!match) return undefined;
      return { type, raw: match[0], text: match[1], tokens: this.lexer.inlineTokens(match[1]) };
    },
  };
}
