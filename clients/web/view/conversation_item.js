/**
 * One conversation in the list: opens it, and offers what can be done with it.
 *
 * Knows nothing about its place in the list. Invariant: the element stays the same while the conversation
 * is the same, so that focus and a name that is being typed survive every save.
 */
import { fill, h, setProp } from "../dom.js";
import { truncate } from "../graphemes.js";
import { icon } from "../icons.js";
import { isForInputMethod } from "../ime.js";
import { openMenu } from "./menu.js";

/** Enough for every width that a title is shown in; the style sheet cuts what is too wide. */
const MAX_TITLE_GRAPHEMES = 80;

/**
 * @param {any} app
 * @param {ReturnType<typeof import("./conversation_actions.js").createConversationActions>} actions
 * @param {string} id
 * @returns {{ element: HTMLElement, show(summary: any, hit: any, isOpen: boolean): void }}
 */
export function createConversationItem(app, actions, id) {
  const { t } = app;
  let summary = null;
  const title = h("span", { class: "conversation-title" });
  const snippetLine = h("span", { class: "conversation-snippet", hidden: true });
  const open = h("button", { class: "conversation-open", type: "button", onclick: () => actions.open(id) }, title, snippetLine);
  const more = h(
    "button",
    { class: ["icon-button", "conversation-more"], type: "button", "aria-haspopup": "menu", "aria-expanded": "false" },
    icon("more"),
  );
  more.addEventListener("click", () => openMenu(more, menuItems(app, actions, summary, beginRename)));
  open.addEventListener("keydown", (event) => {
    if (event.code === "F2") beginRename();
    else if (event.code === "Delete") actions.remove(summary);
  });
  const element = h("li", { class: "conversation" }, open, more);

  function beginRename() {
    const input = renameInput(app, summary.title, (newTitle) => {
      fill(element, open, more);
      open.focus();
      if (newTitle && newTitle !== summary.title) void app.chat.rename(id, newTitle);
    });
    fill(element, input);
    input.focus();
    input.select();
  }

  return {
    element,
    show(newSummary, hit, isOpen) {
      summary = newSummary;
      const name = truncate(summary.title || t("sidebar.untitled"), MAX_TITLE_GRAPHEMES);
      fill(title, ...(marked(hit?.title) ?? [name]));
      setProp(open, "title", name);
      setProp(more, "aria-label", t("sidebar.menu", { title: name }));
      setProp(open, "aria-current", isOpen ? "page" : null);
      snippetLine.hidden = !hit?.message;
      fill(snippetLine, ...(marked(hit?.message) ?? []));
    },
  };
}

/** @param {import("../store/search.js").Snippet | null | undefined} snippet */
function marked(snippet) {
  return snippet ? [snippet.before, h("mark", null, snippet.match), snippet.after] : null;
}

/** A field for a new name; `onEnd` hears null where it was given up. */
function renameInput(app, title, onEnd) {
  let hasEnded = false;
  const end = (newTitle) => {
    if (hasEnded) return;
    hasEnded = true;
    onEnd(newTitle);
  };
  const input = h("input", { class: "conversation-rename", type: "text", value: title, maxlength: 200, "aria-label": app.t("sidebar.newTitle") });
  input.addEventListener("keydown", (event) => {
    if (isForInputMethod(event)) return;
    if (event.key === "Enter") end(input.value.trim().normalize("NFC"));
    if (event.key !== "Escape") return;
    event.stopPropagation();
    end(null);
  });
  input.addEventListener("blur", () => end(input.value.trim().normalize("NFC")));
  return input;
}

function menuItems({ t, chat }, actions, summary, beginRename) {
  const { id, isPinned } = summary;
  return [
    { label: t("sidebar.rename"), icon: "edit", run: beginRename },
    { label: t(isPinned ? "sidebar.unpin" : "sidebar.pin"), icon: "pin", run: () => void chat.setPinned(id, !isPinned) },
    { label: t("sidebar.exportMarkdown"), icon: "download", run: () => actions.exportMarkdown(id) },
    { label: t("sidebar.exportJson"), icon: "download", run: () => actions.exportJson([id], summary.title) },
    { label: t("action.delete"), icon: "trash", run: () => actions.remove(summary), isDangerous: true },
  ];
}
