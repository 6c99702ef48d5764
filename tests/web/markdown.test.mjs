// Markdown as text: what is read as what, how an unfinished end is shown, and which blocks stay.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { createBlocks } from "../../clients/web/markdown/blocks.js";
import { LANGUAGES } from "../../clients/web/markdown/highlight.js";
import { displayable } from "../../clients/web/markdown/open_end.js";
import { createParser } from "../../clients/web/markdown/parser.js";

const MARKED = fileURLToPath(new URL("../../clients/web/vendor/marked.js", import.meta.url));
const skip = existsSync(MARKED) ? false : "vendor/ is missing; `make web-setup` fills it";
const parser = skip ? null : createParser(await import(MARKED), { imageLabel: (name) => `그림: ${name}` });

const html = (text) => parser.html(parser.lex(text)).trim();

test("emphasis reaches up to Korean particles", { skip }, () => {
  assert.equal(html('**"강조"**는 좋다'), "<p><strong>&quot;강조&quot;</strong>는 좋다</p>");
  assert.equal(html("이것은**(중요)**입니다"), "<p>이것은<strong>(중요)</strong>입니다</p>");
  assert.equal(html("*‘온돌’*은"), "<p><em>‘온돌’</em>은</p>");
  assert.equal(html("**a *b***"), "<p><strong>a <em>b</em></strong></p>");
  assert.equal(html("***둘 다***는"), "<p><em><strong>둘 다</strong></em>는</p>");
  assert.equal(html("**코드 `a**b`**는"), "<p><strong>코드 <code>a**b</code></strong>는</p>");
});

test("what is no emphasis stays as it is", { skip }, () => {
  for (const text of ["2 ** 3 ** 4", "5 * 3 * 2", "\\*\\*아님\\*\\*", "snake_case_name"]) {
    assert.equal(html(text), `<p>${text.replaceAll("\\", "")}</p>`);
  }
});

test("one tilde is a range, two strike out", { skip }, () => {
  assert.equal(html("1~3명, 5~7명"), "<p>1~3명, 5~7명</p>");
  assert.equal(html("~~지움~~"), "<p><del>지움</del></p>");
});

test("a particle is no part of an address, Hangul in a path is", { skip }, () => {
  assert.match(html("https://example.com을 보세요"), /<a href="https:\/\/example.com">https:\/\/example.com<\/a>을/);
  assert.match(html("https://example.com/a?b=1입니다."), /b=1<\/a>입니다\./);
  assert.match(html("https://ko.wikipedia.org/wiki/서울"), />https:\/\/ko.wikipedia.org\/wiki\/서울<\/a>/);
});

test("money is no formula, and formulas may touch Hangul", { skip }, () => {
  for (const text of ["$5 and $10", "US$5와 A$10", "$5~$10", "$HOME/$USER", "가격은 $5에서 $10까지"]) {
    assert.equal(html(text), `<p>${text}</p>`);
  }
  assert.equal(html("$x^2$는"), '<p><span class="formula">x^2</span>는</p>');
  assert.equal(html("\\(a<b\\)"), '<p><span class="formula">a&lt;b</span></p>');
  assert.equal(html("$$\nE\n$$"), '<p><span class="formula formula-display">E</span></p>');
  assert.equal(html("앞 \\[ E \\] 뒤"), '<p>앞 <span class="formula formula-display">E</span> 뒤</p>');
});

test("HTML is text, save for breaks and the like without attributes", { skip }, () => {
  assert.equal(html("a<br>H<sub>2</sub>"), "<p>a<br>H<sub>2</sub></p>");
  assert.equal(html("<sub onclick=x>a"), "<p>&lt;sub onclick=x&gt;a</p>");
  assert.equal(html("<div>\n**x**\n</div>"), "<p>&lt;div&gt;<br><strong>x</strong><br>&lt;/div&gt;</p>");
});

test("images are links that say so", { skip }, () => {
  assert.equal(html("![고양이](https://a.example/c.png)"), '<p><a href="https://a.example/c.png">그림: 고양이</a></p>');
});

for (const [raw, shown, type = "paragraph"] of [
  ["**굵", "**굵**"],
  ["**굵*", "**굵**"],
  ["글 **", "글"],
  ["***둘", "***둘***"],
  ["글 `co", "글 `co`"],
  ["글 `$x_", "글 `$x_`"],
  ["`$HOME_DIR` 를", "`$HOME_DIR` 를"],
  ["글\n-", "글"],
  ["글\n===", "글"],
  ["a <br", "a "],
  ["[네이버](https://na", "네이버"],
  ["값 $x^2 + ", "값 "],
  ["값 $5 for", "값 $5 for"],
  ["2 * 3", "2 * 3"],
  ["| a | b", ""],
  ["| a | b |\n|--", ""],
  ["| a | b |\n|---|-", "| a | b |\n|---|-", "table"],
  ["표:\n| a |", "표:"],
  ["- a\n- **b", "- a\n- **b**", "list"],
  ["- a\n-", "- a", "list"],
  ["- **a\n- b", "- **a\n- b", "list"],
  ["- a\n  ```py\n  x = $y_", "- a\n  ```py\n  x = $y_", "list"],
  ["```py\nx\n``", "```py\nx", "code"],
  ["```py\nx\n```", "```py\nx\n```", "code"],
  ["| a |\n|---|\n| **x", "| a |\n|---|\n| **x**", "table"],
]) {
  test(`an end such as ${JSON.stringify(raw)} is shown as ${JSON.stringify(shown)}`, () => {
    assert.equal(displayable(raw, type), shown);
  });
}

const ANSWER = [
  "# 제목", "문단 하나.\n이어서 **굵게**.", "1. 하나\n2. 둘\n   - 안\n\n   문단", "| a | b |\n|---|---|\n| 1 | 2 |",
  "```py\n# 주석\n\nx = 1\n```", "> 인용\n> 둘째 줄", "$$\nE = mc^2\n$$", "    들여 쓴 코드\n\n    둘째", "[이름][1] 끝.",
  "---", "[1]: https://example.com",
].join("\n\n");

test("a text that grows becomes the same blocks as the whole one", { skip }, () => {
  for (const step of [1, 2, 5, 17]) {
    const growing = createBlocks(parser);
    const kept = [];
    const take = ({ from, blocks }) => kept.splice(from, Infinity, ...blocks);
    for (let end = step; end < ANSWER.length; end += step) take(growing.update(ANSWER.slice(0, end), false));
    take(growing.update(ANSWER, true));
    const whole = createBlocks(parser).update(ANSWER, true).blocks;
    const markup = (blocks) => blocks.map((block) => parser.html(block.tokens));
    assert.deepEqual(markup(kept), markup(whole));
    assert.ok(kept.every((block) => block.isClosed));
  }
});

test("only the last block of a growing text changes", { skip }, () => {
  const blocks = createBlocks(parser);
  blocks.update("하나.\n\n둘.\n\n셋", false);
  const { from, blocks: changed } = blocks.update("하나.\n\n둘.\n\n셋이", false);
  assert.equal(from, 2);
  assert.deepEqual(changed.map((block) => block.raw), ["셋이"]);
});

test("the languages that are coloured are those that are copied beside the page", () => {
  const copier = readFileSync(new URL("../../clients/web/vendor.mjs", import.meta.url), "utf8");
  const copied = /const LANGUAGES = \[([^\]]*)\]/.exec(copier)[1].match(/\w+/g);
  assert.deepEqual([...LANGUAGES], copied);
});

test("another text begins anew", { skip }, () => {
  const blocks = createBlocks(parser);
  blocks.update("하나.\n\n둘", false);
  assert.equal(blocks.update("셋", false).from, 0);
});
