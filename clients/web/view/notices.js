/**
 * What the page has to say by itself: short notices, and whether the daemon is there.
 *
 * Knows nothing about who says it. Invariant: a notice that asks for something stays until it is
 * answered or closed; the others stay as long as they are pointed at.
 */
import { h } from "../dom.js";
import { icon } from "../icons.js";

const STAY_MS = { info: 5000, success: 4000, warning: 8000 };
const STAY_WITH_ACTION_MS = 10_000;
const MAX_NUM_NOTICES = 3;
/** An absence that nobody notices. */
const BLINK_MS = 500;
const ICONS = { info: "info", success: "check", warning: "warning", error: "warning" };

/**
 * @typedef {object} Notice
 * @property {"info" | "success" | "warning" | "error"} kind errors stay until they are closed
 * @property {string} text
 * @property {{ label: string, run: () => void }} [action]
 */

/**
 * Shows the state's `notice` whenever it becomes another one.
 *
 * @param {any} app
 * @returns {HTMLElement}
 */
export function createNotices(app) {
  // Two regions that are there from the start: screen readers hear of what comes into them.
  const polite = h("div", { class: "notices-region", role: "status" });
  const urgent = h("div", { class: "notices-region", role: "alert" });
  const region = h("div", { class: "notices", popover: "manual" }, urgent, polite);
  app.state.subscribe(["notice"], ({ notice }) => {
    if (notice === null) return;
    raise(region);
    const target = notice.kind === "error" ? urgent : polite;
    target.append(noticeElement(app, notice, () => hideEmpty(region)));
    const shown = region.querySelectorAll(".notice");
    if (shown.length > MAX_NUM_NOTICES) shown[0].remove();
    app.state.set({ notice: null });
  });
  return region;
}

/** Over everything. A modal dialog makes whatever is outside of it dead, so notices come into it. */
function raise(region) {
  const dialog = document.querySelector("dialog[open]");
  if (region.matches(":popover-open")) region.hidePopover();
  (dialog ?? document.body).append(region);
  region.showPopover();
  dialog?.addEventListener("close", () => {
    raise(region);
    hideEmpty(region);
  }, { once: true });
}

function hideEmpty(region) {
  if (region.matches(":popover-open") && !region.querySelector(".notice")) region.hidePopover();
}

function noticeElement({ t }, notice, onDismiss) {
  const dismiss = () => {
    clearTimeout(timer);
    element.remove();
    onDismiss();
  };
  const act = () => {
    dismiss();
    notice.action.run();
  };
  const element = h(
    "div",
    { class: ["notice", `is-${notice.kind}`] },
    icon(ICONS[notice.kind]),
    h("p", { class: "notice-text" }, notice.text),
    notice.action && h("button", { class: "notice-action", type: "button", onclick: act }, notice.action.label),
    h("button", { class: "icon-button", type: "button", "aria-label": t("action.close"), onclick: dismiss }, icon("close")),
  );
  let timer = null;
  const wait = () => {
    clearTimeout(timer);
    if (notice.kind !== "error") timer = setTimeout(dismiss, notice.action ? STAY_WITH_ACTION_MS : STAY_MS[notice.kind]);
  };
  for (const event of ["pointerenter", "focusin"]) element.addEventListener(event, () => clearTimeout(timer));
  for (const event of ["pointerleave", "focusout"]) element.addEventListener(event, wait);
  wait();
  return element;
}

/**
 * A line over the chat while the daemon starts or is away.
 *
 * @param {any} app
 * @returns {HTMLElement}
 */
export function createConnectionBanner(app) {
  const { state, connection, t } = app;
  const text = h("span", null);
  const retry = h("button", { class: "banner-action", type: "button", onclick: () => connection.check() }, t("action.retry"));
  const banner = h("div", { class: "banner", hidden: true }, h("span", { class: "banner-dot" }), text, retry);
  const region = h("div", { class: "banner-region", role: "status" }, banner);
  let goneSinceMs = null;
  const show = () => {
    const phase = state.get().connection;
    banner.hidden = phase === "ready";
    banner.classList.toggle("is-gone", phase === "gone");
    retry.hidden = phase !== "gone";
    text.textContent = phase === "ready" ? "" : t(`connection.${phase}`);
    if (phase === "gone") goneSinceMs ??= performance.now();
    if (phase !== "ready" || goneSinceMs === null) return;
    // One answer that broke off is told beside the answer.
    const isWorthTelling = performance.now() - goneSinceMs > BLINK_MS;
    goneSinceMs = null;
    if (isWorthTelling) state.set({ notice: { kind: "success", text: t("connection.back") } });
  };
  state.subscribe(["connection"], show);
  show();
  return region;
}
