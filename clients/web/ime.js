/**
 * Keys and clicks around the composition of syllables (Hangul, kana and the like).
 *
 * Knows nothing about what a key does. Invariant: no key that belongs to the input method is taken for
 * one of ours, and no text is read before its last syllable is in.
 */

/** A composition that a click has ended is over by then, also where the browser forgets to say so. */
const MAX_SETTLING_MS = 300;

/**
 * Whether the input method gets this key. Safari ends the composition before it tells of the key that
 * ended it; the key code 229 is what remains to tell it by.
 *
 * @param {KeyboardEvent} event
 * @returns {boolean}
 */
export function isForInputMethod(event) {
  return event.isComposing || event.keyCode === 229;
}

/**
 * @param {HTMLTextAreaElement | HTMLInputElement} field
 * @returns {{ isActive(): boolean, settled(): Promise<void> }} `settled` ends a composition, and resolves
 *   when the field's value holds its last syllable
 */
export function watchComposition(field) {
  let isActive = false;
  field.addEventListener("compositionstart", () => {
    isActive = true;
  });
  field.addEventListener("compositionend", () => {
    isActive = false;
  });
  return {
    isActive: () => isActive,
    async settled() {
      if (!isActive) return;
      await new Promise((resolve) => {
        setTimeout(resolve, MAX_SETTLING_MS);
        // The value is written before this event in some browsers and after it in others.
        field.addEventListener("compositionend", () => setTimeout(resolve), { once: true });
        field.blur();
      });
    },
  };
}

/**
 * What Enter means in a field: a new line where fingers type, for their keyboards have no Shift to hold.
 *
 * @param {KeyboardEvent} event
 * @param {{ sendKey: "enter" | "mod-enter", isCoarse: boolean }} options
 * @returns {boolean} whether it sends
 */
export function isSendKey(event, { sendKey, isCoarse }) {
  if (event.key !== "Enter" || event.shiftKey || event.altKey) return false;
  if (event.ctrlKey || event.metaKey) return true;
  return sendKey === "enter" && !isCoarse;
}
