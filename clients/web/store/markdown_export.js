/**
 * One conversation as Markdown, to be read elsewhere.
 *
 * Knows nothing about files. Invariant: the open branch is written whole, in the words of its messages.
 */
import { path } from "../conversation.js";

/**
 * @param {import("../conversation.js").Conversation} conversation
 * @param {{ t: import("../i18n.js").Translate, locale: string }} language
 * @returns {string}
 */
export function toMarkdown(conversation, { t, locale }) {
  const date = new Intl.DateTimeFormat(locale, { dateStyle: "long", timeStyle: "short" });
  const head = [`# ${conversation.title || t("sidebar.untitled")}`, `_${date.format(conversation.createdAt)}_`];
  if (conversation.system) head.push(`> ${conversation.system.replaceAll("\n", "\n> ")}`);
  const turns = path(conversation).map(({ role, modelId, content }) => {
    const speaker = role === "user" ? t("export.user") : (modelId ?? t("export.assistant"));
    return `## ${speaker}\n\n${content.trim()}`;
  });
  return `${[...head, ...turns].join("\n\n")}\n`;
}

/**
 * @param {string} title
 * @param {string} ending without the dot
 * @returns {string} a file name that every system takes
 */
export function fileName(title, ending) {
  const name = title.normalize("NFC").replace(/[\p{Cc}<>:"/\\|?*]+/gu, " ").replace(/\s+/g, " ").trim().replace(/^\.+|\.+$/g, "");
  return `${[...name].slice(0, 60).join("").trim() || "ondol"}.${ending}`;
}
