/**
 * Where a pane is scrolled to: at the end and staying there, or where the reader went.
 *
 * Knows nothing about what is in it. Invariant: only the reader leaves the end, and who has left it is not
 * moved; a pane at its end is there before anything new is painted.
 */

/** So close to the end counts as being there. */
const NEAR_PX = 24;

export class Scroller {
  #pane;
  #content;
  #onMove;
  #isFollowing = true;
  #lastTop = 0;
  /** Browsers scroll by whole pixels; what is left over is made good the next time. */
  #residue = 0;

  /**
   * @param {HTMLElement} pane scrolls
   * @param {HTMLElement} content grows in it
   * @param {{ onMove: (isAtEnd: boolean) => void }} options
   */
  constructor(pane, content, { onMove }) {
    this.#pane = pane;
    this.#content = content;
    this.#onMove = onMove;
    pane.addEventListener("scroll", () => this.#onScroll(), { passive: true });
    const observer = new ResizeObserver(() => this.#onResize());
    observer.observe(pane);
    observer.observe(content);
  }

  get isAtEnd() {
    return this.#isFollowing;
  }

  /** Goes to the end and stays there. */
  follow() {
    this.#isFollowing = true;
    this.#onMove(true);
    this.#stick();
  }

  /** Stays where it is although what is below grows: the reader is busy there. */
  leave() {
    this.#isFollowing = false;
  }

  /** Changes what is above without moving what is being read. @param {() => void} change */
  keepInPlace(change) {
    const anchor = firstInSight(this.#pane, this.#content);
    const wanted = (anchor?.getBoundingClientRect().top ?? 0) - this.#residue;
    change();
    if (this.#isFollowing) this.#stick();
    else if (anchor?.isConnected) {
      this.#pane.scrollTop += anchor.getBoundingClientRect().top - wanted;
      this.#residue = anchor.getBoundingClientRect().top - wanted;
    }
    this.#lastTop = this.#pane.scrollTop;
  }

  #distance() {
    return this.#pane.scrollHeight - this.#pane.scrollTop - this.#pane.clientHeight;
  }

  #stick() {
    if (!this.#isFollowing) return;
    this.#pane.scrollTop = this.#pane.scrollHeight;
    this.#lastTop = this.#pane.scrollTop;
  }

  #onScroll() {
    const top = this.#pane.scrollTop;
    if (top !== this.#lastTop) this.#residue = 0;
    // What grows below makes the distance larger, too; only going up is leaving.
    if (top < this.#lastTop - 1 && this.#distance() > NEAR_PX) this.#isFollowing = false;
    else if (this.#distance() <= NEAR_PX) this.#isFollowing = true;
    this.#lastTop = top;
    this.#onMove(this.#isFollowing);
  }

  #onResize() {
    this.#stick();
    if (!this.#isFollowing) this.#onMove(this.#distance() <= NEAR_PX);
  }
}

/** @returns {Element | undefined} */
function firstInSight(pane, content) {
  const top = pane.getBoundingClientRect().top;
  return [...content.children].find((child) => child.getBoundingClientRect().bottom > top);
}
