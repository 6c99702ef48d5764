/**
 * The only door through which text becomes markup: what a model wrote is untrusted.
 *
 * Knows nothing about markdown. Invariants: nothing but the elements and attributes listed here comes out,
 * links lead to the web or to mail and tell nobody where they were found, and nothing is fetched.
 */

const TAGS = [
  "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "kbd", "li", "mark", "ol",
  "p", "pre", "span", "strong", "sub", "sup", "table", "tbody", "td", "th", "thead", "tr", "u", "ul",
];
const ATTRIBUTES = ["align", "class", "href", "start", "title"];
/** Classes that the parser writes: a model must not borrow the looks of the page. */
const CLASSES = /^(?:formula(?: formula-display)?|language-[\w+#.-]+)$/;
const ADDRESSES = /^(?:https?:\/\/|mailto:)/i;

/** MathML Core without what links, is filled with HTML or names a style; KaTeX writes no other elements. */
const FORMULA_TAGS = [
  "math", "menclose", "merror", "mfrac", "mi", "mmultiscripts", "mn", "mo", "mover", "mpadded", "mphantom", "mprescripts",
  "mroot", "mrow", "ms", "mspace", "msqrt", "mstyle", "msub", "msubsup", "msup", "mtable", "mtd", "mtext", "mtr",
  "munder", "munderover",
];
const FORMULA_ATTRIBUTES = [
  "accent", "accentunder", "columnalign", "columnlines", "columnspacing", "depth", "display", "displaystyle", "fence",
  "height", "largeop", "linebreak", "linethickness", "lspace", "mathbackground", "mathcolor", "mathsize", "mathvariant",
  "maxsize", "minsize", "movablelimits", "notation", "rowlines", "rowspacing", "rspace", "scriptlevel", "separator",
  "stretchy", "symmetric", "voffset", "width",
];

const COMMON = { RETURN_DOM_FRAGMENT: true, ALLOW_DATA_ATTR: false, ALLOW_ARIA_ATTR: false };

/**
 * @param {(window: Window) => any} createPurifier DOMPurify
 * @param {Window} window
 * @returns {{ markup(html: string): DocumentFragment, formula(mathml: string): DocumentFragment }}
 */
export function createSanitizer(createPurifier, window) {
  const purifier = createPurifier(window);
  purifier.addHook("uponSanitizeAttribute", (_, data) => {
    if (data.attrName === "class" && !CLASSES.test(data.attrValue)) data.keepAttr = false;
  });
  purifier.addHook("afterSanitizeAttributes", (element) => {
    if (element.nodeName !== "A" || !element.hasAttribute("href")) return;
    element.setAttribute("target", "_blank");
    element.setAttribute("rel", "noopener noreferrer nofollow");
    element.setAttribute("referrerpolicy", "no-referrer");
  });
  const markupOptions = {
    ...COMMON,
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ATTRIBUTES,
    ALLOWED_URI_REGEXP: ADDRESSES,
    ADD_URI_SAFE_ATTR: ["align", "start"],
  };
  const formulaOptions = {
    ...COMMON,
    ALLOWED_TAGS: FORMULA_TAGS,
    ALLOWED_ATTR: FORMULA_ATTRIBUTES,
    // The formula's source, which would be read out after it.
    FORBID_CONTENTS: ["annotation"],
  };
  return {
    markup: (html) => purifier.sanitize(html, markupOptions),
    formula: (mathml) => purifier.sanitize(mathml, formulaOptions),
  };
}
