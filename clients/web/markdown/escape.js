/**
 * Text as HTML that means that text. Invariant: no mark of HTML is left in it, in content or in quotes.
 */

const ENTITIES = Object.freeze({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" });

/** @param {string} text @returns {string} */
export function escapeHtml(text) {
  return text.replace(/[&<>"']/g, (mark) => ENTITIES[mark]);
}
