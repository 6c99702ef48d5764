/**
 * The composition root: makes the page's parts and hands them to each other.
 *
 * Knows nothing about what they do. Invariant: nothing runs before this file has made it.
 */

import { followAddress } from "./address.js";
import { createApi } from "./api.js";
import { createChat } from "./chat.js";
import { Connection } from "./connection.js";
import { newId } from "./conversation.js";
import { createConversations } from "./conversations.js";
import { createDrafts } from "./drafts.js";
import { createTranslate, detectLocale } from "./i18n.js";
import { createMarkdown } from "./markdown.js";
import { createState } from "./state.js";
import { openStore } from "./store/store.js";
import { followTheme } from "./theme.js";
import { isCoarse } from "./view/composer.js";
import { createPage } from "./view/page.js";

/** What the reader chose and the store keeps: keys of the state that are settings of the store. */
const KEPT_CHOICES = Object.freeze(["locale", "theme", "modelId", "sendKey", "isSidebarHidden"]);

async function start() {
  const store = await openStore({ newId });
  const state = createState(await initialState(store));
  document.documentElement.lang = state.get().locale;
  followTheme(state, window);
  for (const key of KEPT_CHOICES) state.subscribe([key], (now) => void store.setSetting(key, now[key]));

  const api = createApi({ baseUrl: document.baseURI, onUnauthorized: () => state.set({ needsKey: true }) });
  api.setKey((await store.getSetting("apiKey")) ?? "");
  const t = await createTranslate(state.get().locale);
  const connection = new Connection({ state, api, page: document });
  const warn = (key) => state.set({ notice: { kind: "warning", text: t(key) } });
  const conversations = createConversations({ state, store, onFull: () => warn("page.full") });
  const chat = { ...conversations, ...createChat({ state, api, conversations, connection }) };
  const drafts = createDrafts(() => localStorage);
  const markdown = createMarkdown({ t, onUnavailable: () => warnOfPlainText(warn) });
  const app = { state, api, store, chat, drafts, connection, t, markdown };

  await followAddress(app, window);
  document.body.append(...createPage(app, window));
  nameWindow(app);
  // On a phone that would open the keyboard over the page.
  if (!isCoarse()) document.getElementById("composer-input").focus();
  if (!store.isPersistent) warn("page.notKept");
  connection.start();
  await conversations.refresh();
}

/** Says what to install if packages are missing; that the daemon is gone is told elsewhere. */
async function warnOfPlainText(warn) {
  const answer = await fetch("vendor/marked.js", { method: "HEAD" }).catch(() => null);
  // A daemon with keys does not tell without one what it lacks.
  if ([401, 404].includes(answer?.status)) warn("markdown.unavailable");
}

/** The window's name in lists of tabs is the conversation's, and says when the daemon is gone. */
function nameWindow({ state, t }) {
  const show = () => {
    const { connection, conversation } = state.get();
    document.title = [connection === "gone" && t("page.gone"), conversation.title, "Ondol"].filter(Boolean).join(" · ");
  };
  state.subscribe(["conversation", "connection"], show);
  show();
}

async function initialState(store) {
  const kept = await Promise.all(KEPT_CHOICES.map(async (key) => [key, await store.getSetting(key)]));
  const choices = Object.fromEntries(kept.filter(([, value]) => value !== undefined && value !== null));
  return {
    theme: "system",
    modelId: null,
    sendKey: "enter",
    isSidebarHidden: false,
    ...choices,
    locale: detectLocale(choices.locale, navigator.languages),
    models: [],
    summaries: [],
    conversation: null,
    streaming: null,
    editing: null,
    connection: "ready",
    needsKey: false,
    notice: null,
    search: "",
    panel: null,
    isSidebarOpen: false,
  };
}

void start();
