/**
 * The composition root: makes the page's parts, hands them to each other and puts them in their places.
 *
 * Knows nothing about what they do. Invariant: nothing runs before this file has made it.
 */

import { followAddress } from "./address.js";
import { createApi } from "./api.js";
import { createChat } from "./chat.js";
import { createConnection } from "./connection.js";
import { newId } from "./conversation.js";
import { createConversations } from "./conversations.js";
import { h } from "./dom.js";
import { createDrafts } from "./drafts.js";
import { createTranslate, detectLocale } from "./i18n.js";
import { createMarkdown } from "./markdown.js";
import { createState } from "./state.js";
import { openStore } from "./store/store.js";
import { followTheme } from "./theme.js";
import { createComposer } from "./view/composer.js";
import { createMessages } from "./view/messages.js";

/** Choices of the reader that outlive the page: keys of the state that are settings of the store. */
const KEPT_CHOICES = ["locale", "theme", "modelId"];

async function start() {
  const store = await openStore({ newId });
  const state = createState(await initialState(store));
  const api = createApi({
    baseUrl: document.baseURI,
    onUnauthorized: () => state.set({ needsKey: true }),
  });
  api.setKey((await store.getSetting("apiKey")) ?? "");
  keepChoices(state, store);
  followTheme(state, window);

  const connection = createConnection({ state, api });
  const conversations = createConversations({ state, store });
  const chat = { ...conversations, ...createChat({ state, api, conversations, connection }) };
  const t = createTranslate(() => state.get().locale);
  const drafts = createDrafts(() => localStorage);
  const markdown = createMarkdown({
    t,
    onUnavailable: () => state.set({ notice: { kind: "info", text: t("markdown.unavailable") } }),
  });
  const app = { state, api, store, chat, drafts, connection, t, markdown };

  await followAddress(app, window);
  await conversations.refresh();
  document.body.append(page(app));
  connection.start();
}

/** Where every part of the page goes. */
function page(app) {
  const main = h(
    "main",
    { class: "chat" },
    h("header", { class: "chat-header" }),
    createMessages(app),
    createComposer(app),
  );
  return h("div", { class: "app" }, main);
}

async function initialState(store) {
  const [locale, theme, modelId] = await Promise.all(KEPT_CHOICES.map((key) => store.getSetting(key)));
  return {
    locale: detectLocale(locale, navigator.languages),
    theme: theme ?? "system",
    models: [],
    modelId: modelId ?? null,
    summaries: [],
    conversation: null,
    streaming: null,
    editing: null,
    connection: "ready",
    needsKey: false,
    notice: null,
    search: "",
  };
}

function keepChoices(state, store) {
  for (const key of KEPT_CHOICES) {
    state.subscribe([key], (now) => void store.setSetting(key, now[key]));
  }
}

void start();
