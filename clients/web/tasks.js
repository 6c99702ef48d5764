/**
 * Work cut into tasks, between which the page paints and hears its reader.
 *
 * Knows nothing about the work.
 */

/**
 * @returns {Promise<void>} resolves in a task of its own; unlike a timer's, it comes at once also in a
 *   window that nobody sees, where browsers let timers wait for seconds
 */
export function nextTask() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
