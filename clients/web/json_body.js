/**
 * An object as the JSON body of a request, written in slices: megabytes of history in one piece would hold
 * up the page that shows the question.
 *
 * Knows nothing about requests. Invariant: the bytes are those of `JSON.stringify`; no task writes more than
 * one slice, or one item of a list.
 */
import { nextTask } from "./tasks.js";

/** Characters; 1 to 2 ms on a laptop. */
const SLICE_LENGTH = 100_000;

/**
 * @param {object} value what is long in it are the items of its lists
 * @returns {Promise<string | Blob>} text where one slice holds it. A Blob is in the browser's own process by
 *   then, while text would be copied there before `fetch` returns
 */
export async function jsonBody(value) {
  const written = [];
  let slice = "";
  for (const piece of pieces(value)) {
    if (slice && slice.length + piece.length > SLICE_LENGTH) {
      written.push(new Blob([slice]));
      slice = "";
      await nextTask();
    }
    slice += piece;
  }
  return written.length > 0 ? new Blob([...written, slice]) : slice;
}

/** @returns {Generator<string>} */
function* pieces(value) {
  const entries = Object.entries(value).filter(([, entry]) => entry !== undefined);
  yield "{";
  for (const [index, [name, entry]] of entries.entries()) {
    yield `${index > 0 ? "," : ""}${JSON.stringify(name)}:`;
    if (Array.isArray(entry)) yield* itemPieces(entry);
    else yield JSON.stringify(entry);
  }
  yield "}";
}

function* itemPieces(items) {
  yield "[";
  for (const [index, item] of items.entries()) yield (index > 0 ? "," : "") + JSON.stringify(item);
  yield "]";
}
