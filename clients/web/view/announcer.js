/**
 * Tells screen readers what the model says, sentence by sentence.
 *
 * Knows nothing about what is seen. Invariant: each sentence is told once, when it is whole.
 */

import { h } from "../dom.js";
import { splitThought } from "../thoughts.js";

/** Kept for those who are slower than the model. */
const MAX_SENTENCES = 8;
/** A sentence's end, in Korean and English, or a line's. */
const END = /[.!?。…]["'”’)\]]*\s|\n/g;

/**
 * @param {any} app
 * @returns {HTMLElement}
 */
export function createAnnouncer({ state, t }) {
  const region = h("div", { class: "visually-hidden", role: "status", "aria-live": "polite", "aria-atomic": "false" });
  let answerId = null;
  let numTold = 0;

  function say(text) {
    const words = plain(text);
    if (!words) return;
    region.append(h("p", null, words));
    while (region.childElementCount > MAX_SENTENCES) region.firstElementChild.remove();
  }

  state.subscribe(["streaming"], ({ streaming, conversation }) => {
    const id = streaming?.messageId ?? answerId;
    const text = streaming ? streaming.text : conversation?.messages[id]?.content;
    if (streaming && id !== answerId) {
      answerId = id;
      numTold = splitThought(text).answer.length;
      region.replaceChildren();
      say(t("announce.started"));
      return;
    }
    if (text === undefined || answerId === null) return;
    const { answer } = splitThought(text);
    const end = streaming ? numTold + lastEnd(answer.slice(numTold)) : answer.length;
    if (end > numTold) say(answer.slice(numTold, end));
    numTold = Math.max(numTold, end);
    if (!streaming) {
      answerId = null;
      say(t("announce.ended"));
    }
  });
  return region;
}

/** @param {string} text @returns {number} where its last whole sentence ends */
function lastEnd(text) {
  return [...text.matchAll(END)].reduce((_, match) => match.index + match[0].length, 0);
}

/** Without the signs of markdown, which nobody wants to hear. */
function plain(text) {
  return text.replace(/[*_`#>|]+/g, "").replace(/\s+/g, " ").trim();
}
