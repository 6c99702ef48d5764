/**
 * Brings one element's content to the likeness of another's, touching what differs only.
 *
 * So a selection, the scroll position of a table and the pixels of what stays survive each token. Knows
 * nothing about markdown. Invariant: afterwards `target` holds what `source` held; `source` is used up.
 */

/**
 * @param {Node} target
 * @param {Node} source
 */
export function morph(target, source) {
  let current = target.firstChild;
  for (const wanted of [...source.childNodes]) {
    if (!current) {
      target.appendChild(wanted);
      continue;
    }
    const next = current.nextSibling;
    if (isSameKind(current, wanted)) update(current, wanted);
    else target.replaceChild(wanted, current);
    current = next;
  }
  while (current) {
    const next = current.nextSibling;
    target.removeChild(current);
    current = next;
  }
}

function isSameKind(current, wanted) {
  return current.nodeName === wanted.nodeName && current.namespaceURI === wanted.namespaceURI;
}

function update(current, wanted) {
  if (current.nodeType !== Node.ELEMENT_NODE) {
    updateText(current, wanted.nodeValue);
    return;
  }
  if (current.isEqualNode(wanted)) return;
  for (const { name } of [...current.attributes]) {
    if (!wanted.hasAttribute(name)) current.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (current.getAttribute(name) !== value) current.setAttribute(name, value);
  }
  morph(current, wanted);
}

/** Text that only grew is added to: what is selected in it stays selected. */
function updateText(node, value) {
  if (value === node.nodeValue) return;
  if (value.startsWith(node.nodeValue)) node.appendData(value.slice(node.nodeValue.length));
  else node.nodeValue = value;
}
