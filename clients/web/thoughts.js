/**
 * Tells a model's thoughts from its answer where the text holds both, between <think> and </think>.
 *
 * Knows nothing about how they are shown. Invariant: no word is lost; each is a thought or the answer.
 */

/**
 * Some templates open the thoughts in the prompt, so the opening tag may be missing.
 *
 * @param {string} text
 * @returns {{ thought: string, answer: string, isThinking: boolean }} `isThinking`: no end of it is there yet
 */
export function splitThought(text) {
  const start = /^\s*<think>/.exec(text);
  const end = text.indexOf("</think>");
  if (end >= 0) {
    const thought = text.slice(start ? start[0].length : 0, end);
    return { thought: thought.trim(), answer: text.slice(end + "</think>".length).trimStart(), isThinking: false };
  }
  if (start) return { thought: text.slice(start[0].length).trim(), answer: "", isThinking: true };
  return { thought: "", answer: text, isThinking: false };
}
