/**
 * What the sidebar and the settings do with conversations beyond the chat: files, deletion with a way back.
 *
 * Knows nothing about lists or menus. Invariant: whatever it does ends in something that is seen: a file,
 * a notice, another list.
 */
import { truncate } from "../graphemes.js";
import { fileName, toMarkdown } from "../store/markdown_export.js";
import { InvalidExport } from "../store/transfer.js";

const NOTICE_TITLE_GRAPHEMES = 24;

/** @param {any} app */
export function createConversationActions(app) {
  const { state, store, chat, drafts, t } = app;

  return {
    async open(id) {
      state.set({ isSidebarOpen: false });
      await chat.open(id);
    },

    /** Deletes at once; the notice brings it back. */
    async remove({ id, title }) {
      const conversation = await chat.remove(id);
      if (!conversation) return;
      const name = truncate(title || t("sidebar.untitled"), NOTICE_TITLE_GRAPHEMES);
      const action = { label: t("action.undo"), run: () => void chat.restore(conversation) };
      state.set({ notice: { kind: "info", text: t("sidebar.deleted", { title: name }), action } });
    },

    async exportMarkdown(id) {
      const { conversations } = await store.exportAll([id]);
      for (const conversation of conversations) {
        const text = toMarkdown(conversation, { t, locale: state.get().locale });
        download(fileName(conversation.title, "md"), "text/markdown", text);
      }
    },

    /** @param {string[]} [ids] all where it is left out */
    async exportJson(ids, title = "") {
      const json = await store.exportAll(ids);
      download(fileName(title || `ondol-${json.exportedAt.slice(0, 10)}`, "json"), "application/json", JSON.stringify(json, null, 1));
    },

    /** @param {File} file */
    async importFile(file) {
      state.set({ notice: await importNotice(app, file) });
      await chat.refresh();
    },

    async removeAll() {
      drafts.removeAll();
      await chat.removeAll();
      state.set({ notice: { kind: "success", text: t("data.removedAll") } });
    },
  };
}

async function importNotice({ store, t }, file) {
  try {
    const { numAdded, numSkipped, numCopied } = await store.importAll(JSON.parse(await file.text()));
    const counts = [t("import.done", { count: numAdded + numCopied })];
    if (numSkipped) counts.push(t("import.skipped", { count: numSkipped }));
    if (numCopied) counts.push(t("import.copied", { count: numCopied }));
    return { kind: "success", text: counts.join(" ") };
  } catch (error) {
    if (error instanceof SyntaxError) return { kind: "error", text: t("import.unknownFormat") };
    if (error.name === "QuotaExceededError") return { kind: "error", text: t("page.full") };
    if (error instanceof InvalidExport) return { kind: "error", text: t(`import.${error.reason}`, { place: error.place }) };
    throw error;
  }
}

/** Hands a file to the reader; nothing leaves the machine. */
function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  // The browser has begun to read by the next task.
  setTimeout(() => URL.revokeObjectURL(url));
}
