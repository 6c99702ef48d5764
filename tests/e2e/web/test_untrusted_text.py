"""What a model writes can never run: texts made to break out stay text, whole and in pieces."""

import json
from pathlib import Path

import pytest

TEXTS = json.loads((Path(__file__).parents[2] / "data" / "untrusted_markdown.json").read_text("utf-8"))

# What an element consists of.
PARTS = """
  const parts = (element) => {
    const all = [...element.querySelectorAll("*")];
    const attributes = all.flatMap((one) =>
      [...one.attributes].map(({ name, value }) => [one.localName, name, value]));
    return { tags: [...new Set(all.map((one) => one.localName))], attributes };
  };
"""

# Shows every text in an element of its own, whole or growing by a few characters, and tells what it became.
SHOW = (
    f"async ([texts, step]) => {{ {PARTS}"
    """
  const { createMarkdown } = await import("/markdown.js");
  const markdown = createMarkdown({ t: (key) => key });
  const root = document.body.appendChild(document.createElement("main"));
  const shown = texts.map(({ name, text }) => {
    const element = root.appendChild(document.createElement("div"));
    const pieces = step ? Math.ceil(Math.min(text.length, 400) / step) : 0;
    return { name, text, element, pieces };
  });
  const ready = shown[0].element;
  markdown.render(ready, "**a**", { isFinal: false });
  while (!ready.querySelector("strong")) await new Promise(requestAnimationFrame);
  for (const { text, element, pieces } of shown) {
    for (let index = 1; index <= pieces; index++) {
      markdown.render(element, text.slice(0, index * step), { isFinal: false });
    }
    markdown.render(element, text, { isFinal: true });
  }
  // The highlighter and the formulas come later.
  const isSet = () => root.querySelector(".formula > math") && root.querySelector(".hljs-tag");
  while (!isSet()) await new Promise(requestAnimationFrame);
  for (const element of root.querySelectorAll("*")) {
    for (const kind of ["mouseover", "focus", "toggle"]) element.dispatchEvent(new Event(kind));
  }
  await new Promise((resolve) => setTimeout(resolve, 50));
  return shown.map(({ name, element }) => ({
    name,
    ...parts(element),
    text: element.textContent.length,
  }));
}
"""
)

ELEMENTS = """
a blockquote br button code del div em figcaption figure h1 h2 h3 h4 h5 h6 hr kbd li mark ol p pre span strong
sub sup table tbody td th thead tr u ul
math mfrac mi mn mo mpadded mrow mspace mstyle msub msup mtext
"""
ATTRIBUTES = """
align aria-label aria-level class data-copy href rel referrerpolicy role start tabindex target title type
depth display fence height mathbackground mathcolor mathvariant separator stretchy voffset width xmlns
"""


# The same texts as HTML: what the parser might let through one day.
SANITIZE = (
    f"async (texts) => {{ {PARTS}"
    """
  const { createSanitizer } = await import("/markdown/sanitizer.js");
  const { default: purify } = await import("/vendor/purify.js");
  const sanitizer = createSanitizer(purify, window);
  const root = document.body.appendChild(document.createElement("main"));
  const put = (name, markup) => {
    const element = root.appendChild(document.createElement("div"));
    element.append(markup);
    return { name, element };
  };
  const shown = texts.flatMap(({ name, text }) =>
    [put(name, sanitizer.markup(text)), put(name, sanitizer.formula(text))]);
  await new Promise((resolve) => setTimeout(resolve, 50));
  return shown.map(({ name, element }) => ({ name, ...parts(element) }));
}
"""
)


def is_inert(shown):
    """Nothing but the elements and attributes that the page itself knows."""
    for text in shown:
        assert set(text["tags"]) <= set(ELEMENTS.split()), text["name"]
        for tag, name, value in text["attributes"]:
            assert name in ATTRIBUTES.split(), (text["name"], tag, name)
            if name == "href":
                assert value.startswith(("https://", "http://", "mailto:")), (text["name"], value)
            if name == "class":
                assert "dialog" not in value.split(), text["name"]
    return True


def listen(page):
    """What the page asks the reader from here on."""
    asked = []
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    return asked


@pytest.mark.parametrize("step", [0, 3], ids=["whole", "in pieces"])
def test_untrusted_text_never_runs(page, step):
    dialogs = listen(page)
    shown = page.evaluate(SHOW, [TEXTS, step])
    assert len(shown) == len(TEXTS) >= 60
    assert is_inert(shown)
    assert all(text["text"] for text in shown)
    assert page.evaluate("window.__hit") is None
    assert dialogs == []
    assert page.evaluate("location.pathname") == "/"


def test_the_sanitizer_alone_lets_nothing_through_either(stub, open_page):
    page = open_page(stub.url, bypass_csp=True)
    dialogs = listen(page)
    assert is_inert(page.evaluate(SANITIZE, TEXTS))
    assert page.evaluate("window.__hit") is None
    assert dialogs == []
