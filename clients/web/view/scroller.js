/**
 * Where a pane is scrolled to: at the end and staying there, or where the reader went.
 *
 * Knows nothing about what is in it. Invariant: only the reader leaves the end, and who has left it is not
 * moved; a pane at its end is there before anything new is painted.
 */

/** So close to the end counts as being there. */
const NEAR_PX = 24;

/**
 * @param {HTMLElement} pane scrolls
 * @param {HTMLElement} content grows in it
 * @param {{ onMove: (isAtEnd: boolean) => void }} options
 */
export function createScroller(pane, content, { onMove }) {
  let isFollowing = true;
  let lastTop = 0;
  /** Browsers scroll by whole pixels; what is left over is made good the next time. */
  let residue = 0;

  const distance = () => pane.scrollHeight - pane.scrollTop - pane.clientHeight;

  function stick() {
    if (!isFollowing) return;
    pane.scrollTop = pane.scrollHeight;
    lastTop = pane.scrollTop;
  }

  function onScroll() {
    const top = pane.scrollTop;
    if (top !== lastTop) residue = 0;
    // What grows below makes the distance larger, too; only going up is leaving.
    if (top < lastTop - 1 && distance() > NEAR_PX) isFollowing = false;
    else if (distance() <= NEAR_PX) isFollowing = true;
    lastTop = top;
    onMove(isFollowing);
  }

  function onResize() {
    stick();
    if (!isFollowing) onMove(distance() <= NEAR_PX);
  }

  pane.addEventListener("scroll", onScroll, { passive: true });
  const observer = new ResizeObserver(onResize);
  observer.observe(pane);
  observer.observe(content);

  return {
    isAtEnd: () => isFollowing,
    /** Goes to the end and stays there. */
    follow() {
      isFollowing = true;
      onMove(true);
      stick();
    },
    /** Changes what is above without moving what is being read. @param {() => void} change */
    keepInPlace(change) {
      const anchor = firstInSight(pane, content);
      const wanted = (anchor?.getBoundingClientRect().top ?? 0) - residue;
      change();
      if (isFollowing) stick();
      else if (anchor?.isConnected) {
        pane.scrollTop += anchor.getBoundingClientRect().top - wanted;
        residue = anchor.getBoundingClientRect().top - wanted;
      }
      lastTop = pane.scrollTop;
    },
  };
}

/** @returns {Element | undefined} */
function firstInSight(pane, content) {
  const top = pane.getBoundingClientRect().top;
  return [...content.children].find((child) => child.getBoundingClientRect().bottom > top);
}
