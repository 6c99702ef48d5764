/**
 * A menu that opens at a button.
 *
 * Knows nothing about what its items do. Invariant: one item has the focus while it is open, and the
 * button has it back when it closes; Escape and a click beside it close it, which the browser does.
 */
import { h } from "../dom.js";
import { icon } from "../icons.js";

const MARGIN_PX = 8;

/**
 * @typedef {object} MenuItem
 * @property {string} label
 * @property {string} icon
 * @property {() => void} run
 * @property {boolean} [isDangerous]
 */

/**
 * @param {HTMLElement} button with aria-haspopup="menu"
 * @param {MenuItem[]} items
 */
export function openMenu(button, items) {
  const menu = h("div", { class: "menu", role: "menu", popover: "auto", "aria-label": button.getAttribute("aria-label") });
  const buttons = items.map((item) => menuItem(item, menu));
  menu.append(...buttons);
  menu.addEventListener("keydown", (event) => moveFocus(event, buttons, menu));
  menu.addEventListener("toggle", ({ newState }) => {
    if (newState === "open") return;
    button.setAttribute("aria-expanded", "false");
    menu.remove();
  });
  // Beside the button: inside of a dialog, so that it is not behind it.
  button.after(menu);
  button.setAttribute("aria-expanded", "true");
  menu.showPopover();
  place(menu, button.getBoundingClientRect());
  buttons[0].focus();
}

function menuItem(item, menu) {
  const classes = ["menu-item", item.isDangerous && "is-dangerous"];
  const run = () => {
    menu.hidePopover();
    item.run();
  };
  return h("button", { class: classes, type: "button", role: "menuitem", tabindex: -1, onclick: run }, icon(item.icon), item.label);
}

function moveFocus(event, buttons, menu) {
  const at = buttons.indexOf(document.activeElement);
  const target = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
  if (event.key === "Tab") menu.hidePopover();
  // The browser closes the menu; what the menu is in stays open.
  if (event.key === "Escape") event.stopPropagation();
  if (target === undefined) return;
  event.preventDefault();
  buttons.at(target % buttons.length).focus();
}

/** Below the button, or above it where there is no room; never outside of the window. */
function place(menu, anchor) {
  const { width, height } = menu.getBoundingClientRect();
  const isBelow = anchor.bottom + height + MARGIN_PX <= innerHeight;
  const left = Math.min(anchor.left, innerWidth - width - MARGIN_PX);
  menu.style.left = `${Math.max(left, MARGIN_PX)}px`;
  menu.style.top = `${isBelow ? anchor.bottom + 4 : Math.max(anchor.top - height - 4, MARGIN_PX)}px`;
}
