/**
 * Server-sent events out of a byte stream (WHATWG HTML, section 9.2.6), comments included.
 *
 * Knows nothing about what an event says. Invariant: how the bytes were cut into pieces on the way does
 * not change the events, also in the middle of a character or of a line break.
 */

/**
 * @typedef {{ data: string } | { comment: string }} ServerSentEvent
 */

/**
 * Events as their bytes arrive; ends when the bytes do. An event that was not finished is not told.
 *
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<ServerSentEvent>}
 */
export async function* serverSentEvents(body) {
  const parser = createEventParser();
  const decoder = new TextDecoder();
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    // Also when the consumer stops early: the connection must not stay open unread.
    await reader.cancel().catch(() => undefined);
  }
}

/**
 * @returns {{ push(text: string): ServerSentEvent[] }}
 */
export function createEventParser() {
  let rest = "";
  /** @type {string[]} */
  let dataLines = [];

  function line(text, events) {
    if (text === "") {
      if (dataLines.length > 0) events.push({ data: dataLines.join("\n") });
      dataLines = [];
    } else if (text.startsWith(":")) {
      events.push({ comment: text.slice(1).trim() });
    } else if (text.startsWith("data:")) {
      dataLines.push(text.slice(text[5] === " " ? 6 : 5));
    }
  }

  return {
    push(text) {
      rest += text;
      // A carriage return at the very end may be the first half of a line break.
      const isSplit = rest.endsWith("\r");
      const lines = (isSplit ? rest.slice(0, -1) : rest).split(/\r\n|\r|\n/);
      rest = lines.pop() + (isSplit ? "\r" : "");
      /** @type {ServerSentEvent[]} */
      const events = [];
      for (const complete of lines) line(complete, events);
      return events;
    },
  };
}
