// What the daemon refuses is told in the reader's words, and in the daemon's where there are none.
import assert from "node:assert/strict";
import { test } from "node:test";

import { createTranslate } from "../../clients/web/i18n.js";
import { problemText } from "../../clients/web/problems.js";

const t = await createTranslate("ko");

test("a refusal that has words is told in them", () => {
  const text = problemText(t, { code: "model_in_use", message: "It is answering." }, "starter");
  assert.equal(text, "‘starter’ 모델이 답을 쓰고 있어요. 답이 끝난 다음 다시 시도해 주세요.");
});

test("a refusal without words of its own is told in the daemon's", () => {
  for (const code of ["no_such_code", null, undefined]) {
    assert.equal(problemText(t, { code, message: "No." }), "서버가 요청을 받아들이지 않았어요: No.");
  }
});
