/**
 * The list of conversations, by day or by what was searched for.
 *
 * Knows nothing about what an entry does. Invariant: an entry's element is made once, so a save in the
 * middle of a stream moves nodes and makes none.
 */
import { h } from "../dom.js";
import { groupByDay } from "../store/groups.js";
import { createConversationItem } from "./conversation_item.js";

const PAGE_SIZE = 100;
const SEARCH_DELAY_MS = 150;

/**
 * @param {any} app
 * @param {ReturnType<typeof import("./conversation_actions.js").createConversationActions>} actions
 * @returns {HTMLElement}
 */
export function createConversationList(app, actions) {
  const { state, t } = app;
  const status = h("p", { class: "sidebar-status", role: "status" });
  const groups = h("div", { class: "sidebar-groups" });
  const items = new Map();
  const sections = createSections(t);
  const findHits = createSearch(app, show);
  const moreButton = h("button", { class: "button", type: "button", onclick: showMore }, t("sidebar.showMore"));
  let numShown = PAGE_SIZE;

  function itemOf(summary, hit = null) {
    if (!items.has(summary.id)) items.set(summary.id, createConversationItem(app, actions, summary.id));
    const item = items.get(summary.id);
    item.show(summary, hit, summary.id === state.get().conversation?.id);
    return item.element;
  }

  function showGroups(summaries) {
    const shown = groupByDay(summaries.slice(0, numShown), new Date()).map((group) =>
      sections.show(group.name, group.summaries.map((summary) => itemOf(summary))),
    );
    arrange(groups, summaries.length > numShown ? [...shown, moreButton] : shown);
    status.textContent = summaries.length === 0 ? t("sidebar.empty") : "";
  }

  function showMore() {
    numShown += PAGE_SIZE;
    show();
  }

  function show() {
    const { search, summaries } = state.get();
    forget(items, summaries);
    const hits = findHits();
    if (!hits) return showGroups(pinnedFirst(summaries));
    arrange(groups, [sections.show("found", hits.slice(0, numShown).map((hit) => itemOf(hit.summary, hit)))]);
    status.textContent = hits.length > 0 ? t("sidebar.numResults", { count: hits.length }) : t("sidebar.noResults", { query: search.trim() });
  }

  state.subscribe(["summaries", "conversation"], show);
  show();
  return h("div", { class: "sidebar-list" }, status, groups);
}

/** A group's element is made once, as its entries' are. */
function createSections(t) {
  const sections = new Map();
  const create = (name) => {
    const list = h("ul", { class: "sidebar-group-list" });
    const heading = name !== "found" && h("h2", { class: "sidebar-group-name" }, t(`group.${name}`));
    return { list, element: h("section", { class: "sidebar-group" }, heading, list) };
  };
  return {
    show(name, elements) {
      if (!sections.has(name)) sections.set(name, create(name));
      const { list, element } = sections.get(name);
      arrange(list, elements);
      return element;
    },
  };
}

/**
 * Puts nodes in order and moves only those that are out of it: a node that moves loses the focus. The focus
 * of a node that goes is its neighbour's.
 */
function arrange(parent, wanted) {
  const kept = new Set(wanted);
  for (const child of [...parent.children]) {
    if (kept.has(child)) continue;
    const neighbour = child.contains(document.activeElement) && (child.nextElementSibling ?? child.previousElementSibling);
    child.remove();
    if (neighbour) neighbour.querySelector("button")?.focus();
  }
  wanted.forEach((node, index) => {
    if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] ?? null);
  });
}

/** Conversations beyond the first page are the oldest ones, never pinned ones. */
function pinnedFirst(summaries) {
  return [...summaries].sort((first, second) => Number(second.isPinned) - Number(first.isPinned));
}

function forget(items, summaries) {
  const present = new Set(summaries.map((summary) => summary.id));
  for (const id of items.keys()) if (!present.has(id)) items.delete(id);
}

/**
 * Searches when typing pauses.
 *
 * @returns {() => any[] | null} the newest hits; null where nothing is searched for
 */
function createSearch({ state, store }, onFound) {
  let hits = null;
  let timer = null;
  let running = new AbortController();

  async function run() {
    const { search } = state.get();
    running.abort();
    running = new AbortController();
    const { signal } = running;
    const found = search.trim() === "" ? null : await store.search(search, signal);
    if (signal.aborted) return;
    hits = found;
    onFound();
  }

  state.subscribe(["search"], ({ search }) => {
    clearTimeout(timer);
    timer = setTimeout(run, search.trim() === "" ? 0 : SEARCH_DELAY_MS);
  });
  // Renamed, pinned, removed: what was found is no longer what there is.
  state.subscribe(["summaries"], () => hits && void run());
  return () => hits;
}
