/**
 * The page's icons: strokes on a grid of 24, in the colour of the text beside them.
 *
 * Knows nothing about what they stand for. Invariant: they say nothing to screen readers; what carries an
 * icon has its own label.
 */

const SVG = "http://www.w3.org/2000/svg";

const PATHS = {
  send: "M12 19V5M5.5 11.5 12 5l6.5 6.5",
  stop: "M7 7h10v10H7z",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  check: "m5 12.5 4.5 4.5L19 7",
  edit: "M4 20h4L19.5 8.5l-4-4L4 16zM13 7l4 4",
  retry: "M19.5 12a7.5 7.5 0 1 1-2.4-5.5M19.5 3.5v4.5H15",
  left: "m14.5 6-6 6 6 6",
  right: "m9.5 6 6 6-6 6",
  down: "M12 5v14M5.5 12.5 12 19l6.5-6.5",
  chevron: "m6 9.5 6 6 6-6",
  menu: "M4 7h16M4 12h16M4 17h16",
  plus: "M12 5v14M5 12h14",
  search: "M10.5 17a6.5 6.5 0 1 1 0-13 6.5 6.5 0 0 1 0 13M15.5 15.5 20 20",
  pin: "M9 4h6l-1 6 3 3H7l3-3zM12 13v7",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l1 13h8l1-13M10.5 11v5.5M13.5 11v5.5",
  gear: "M10.2 5.3L10.5 2.9L13.5 2.9L13.8 5.3L15.4 6.0L17.3 4.5L19.5 6.7L18.0 8.5L18.7 10.2L21.1 10.5L21.1 13.5L18.7 13.8L18.0 15.4L19.5 17.3L17.3 19.5L15.4 18.0L13.8 18.7L13.5 21.1L10.5 21.1L10.2 18.7L8.5 18.0L6.7 19.5L4.5 17.3L6.0 15.5L5.3 13.8L2.9 13.5L2.9 10.5L5.3 10.2L6.0 8.5L4.5 6.7L6.7 4.5L8.5 6.0zM12 15a3 3 0 1 1 0-6 3 3 0 0 1 0 6",
  settings: "M4 7h9M17 7h3M4 17h3M11 17h9M15 5v4M9 15v4",
  close: "M6 6l12 12M18 6 6 18",
  download: "M12 4v11M7 10.5l5 5 5-5M5 20h14",
  more: "M6 12h.01M12 12h.01M18 12h.01",
  warning: "M12 4 2.8 20h18.4zM12 10v4.5M12 17.2v.1",
  info: "M12 20.5a8.5 8.5 0 1 1 0-17 8.5 8.5 0 0 1 0 17M12 11v5M12 7.8v.1",
  help: "M12 20.5a8.5 8.5 0 1 1 0-17 8.5 8.5 0 0 1 0 17M9.7 9.5a2.4 2.4 0 1 1 3.4 2.3c-.8.4-1.1.8-1.1 1.7M12 16.3v.1",
  bulb: "M9.5 17.5h5M10 20.5h4M9.5 17.5c0-2-3-3.4-3-7a5.5 5.5 0 0 1 11 0c0 3.6-3 5-3 7",
};

/**
 * @param {keyof typeof PATHS} name
 * @returns {SVGSVGElement}
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const attributes = { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true", focusable: "false" };
  for (const [attribute, value] of Object.entries(attributes)) svg.setAttribute(attribute, value);
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}
