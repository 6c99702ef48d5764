/**
 * Builds DOM nodes without HTML text.
 *
 * Knows nothing about what is shown. Invariant: text stays text, so nothing in it can become markup.
 */

/** @typedef {Node | string | null | undefined | false | Child[]} Child */

/**
 * An element. In `props`, `on*` functions are listeners, `class` may be a list with falsy entries,
 * `dataset` is an object, booleans set or leave out an attribute, `value` is the property, everything
 * else is an attribute; null and undefined are left out.
 *
 * @param {string} tag
 * @param {Record<string, any> | null} [props]
 * @param {...Child} children
 * @returns {HTMLElement}
 */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) setProp(element, name, value);
  element.append(...nodes(children));
  return element;
}

/**
 * Replaces all children; does nothing if they are the same nodes already.
 *
 * @param {Element} parent
 * @param {...Child} children
 */
export function fill(parent, ...children) {
  const wanted = nodes(children);
  const isSame =
    wanted.length === parent.childNodes.length && wanted.every((node, index) => node === parent.childNodes[index]);
  if (!isSame) parent.replaceChildren(...wanted);
}

/**
 * Sets one of `h`'s props on an element that exists.
 *
 * @param {Element} element
 * @param {string} name
 * @param {any} value
 */
export function setProp(element, name, value) {
  if (name.startsWith("on") && typeof value === "function") {
    element.addEventListener(name.slice(2).toLowerCase(), value);
  } else if (name === "class") {
    element.className = (Array.isArray(value) ? value.filter(Boolean).join(" ") : value) ?? "";
  } else if (name === "dataset") {
    Object.assign(element.dataset, value);
  } else if (name === "value") {
    element.value = value ?? "";
  } else if (typeof value === "boolean" && !name.startsWith("aria-")) {
    element.toggleAttribute(name, value);
  } else if (value === null || value === undefined) {
    element.removeAttribute(name);
  } else {
    element.setAttribute(name, String(value));
  }
}

/** Of what stands for no child at all, `condition && child` gives one. */
const NOTHING = Object.freeze([null, undefined, false, ""]);

/** @param {Child[]} children @returns {(Node | string)[]} */
function nodes(children) {
  return children.flat(Infinity).filter((child) => !NOTHING.includes(child));
}
