/**
 * A modal dialog with a heading and a button that closes it.
 *
 * Knows nothing about its content. Invariant: the browser's own <dialog> keeps the focus inside while it
 * is open and gives it back after; Escape and a click beside it close it.
 */
import { h } from "../dom.js";
import { icon } from "../icons.js";

/**
 * @param {any} app
 * @param {object} options
 * @param {string} options.id of the element; its heading is labelled by it
 * @param {string} options.title
 * @param {string} [options.className]
 * @param {() => void} [options.onClose]
 * @param {...import("../dom.js").Child} children
 * @returns {HTMLDialogElement}
 */
function createDialog(app, { id, title, className = "", onClose = () => undefined }, ...children) {
  const close = h(
    "button",
    { class: "icon-button", type: "button", "aria-label": app.t("action.close"), onclick: () => dialog.close() },
    icon("close"),
  );
  const heading = h("h2", { id: `${id}-title`, class: "dialog-title", tabindex: -1 }, title);
  const dialog = /** @type {HTMLDialogElement} */ (
    h(
      "dialog",
      { id, class: ["dialog", className], "aria-labelledby": `${id}-title`, onclose: onClose },
      h("header", { class: "dialog-header" }, heading, close),
      h("div", { class: "dialog-body" }, ...children),
    )
  );
  // A dialog is read from its beginning, unless one field is all that it is about.
  if (!dialog.querySelector("[autofocus]")) heading.autofocus = true;
  // Pressed on the backdrop; a press inside that is let go outside is a selection of text.
  dialog.addEventListener("pointerdown", (event) => {
    if (event.target === dialog && isOutside(event, dialog.getBoundingClientRect())) dialog.close();
  });
  return dialog;
}

/**
 * Opens the dialog while the state's `panel` is its id, and says so when it was closed.
 *
 * @param {any} app
 * @param {string} id
 * @param {Omit<Parameters<typeof createDialog>[1], "id" | "onClose">} options
 * @param {{ onOpen?: () => void }} hooks
 * @param {...import("../dom.js").Child} children
 * @returns {HTMLDialogElement}
 */
export function createPanel(app, id, options, { onOpen = () => undefined }, ...children) {
  const { state } = app;
  const onClose = () => {
    if (state.get().panel === id) state.set({ panel: null });
  };
  const dialog = createDialog(app, { id, ...options, onClose }, ...children);
  state.subscribe(["panel"], ({ panel }) => {
    if (panel === id && !dialog.open) {
      onOpen();
      dialog.showModal();
    } else if (panel !== id && dialog.open) dialog.close();
  });
  return dialog;
}

function isOutside({ clientX, clientY }, { left, right, top, bottom }) {
  return clientX < left || clientX > right || clientY < top || clientY > bottom;
}
