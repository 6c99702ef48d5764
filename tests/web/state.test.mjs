// What parts of the page hear of each other.
import assert from "node:assert/strict";
import { test } from "node:test";

import { createState } from "../../clients/web/state.js";

const microtasks = () => new Promise((resolve) => setImmediate(resolve));

test("changes of one moment are told once, as they are in the end", async () => {
  const state = createState({ first: 1, second: 1 });
  const heard = [];
  state.subscribe(["first", "second"], (now) => heard.push({ ...now }));
  state.set({ first: 2 });
  state.set({ second: 2 });
  state.set({ first: 3 });
  assert.deepEqual(heard, []);
  await microtasks();
  assert.deepEqual(heard, [{ first: 3, second: 2 }]);
});

test("who asked for a key hears of that key alone, until they end it", async () => {
  const state = createState({ mine: 1, other: 1 });
  let numTold = 0;
  const end = state.subscribe(["mine"], () => (numTold += 1));
  state.set({ other: 2, mine: 1 });
  await microtasks();
  assert.equal(numTold, 0);
  state.set({ mine: 2 });
  await microtasks();
  assert.equal(numTold, 1);
  end();
  state.set({ mine: 3 });
  await microtasks();
  assert.equal(numTold, 1);
});

test("a listener may change the state; the change is told in its turn", async () => {
  const state = createState({ cause: 0, effect: 0 });
  const effects = [];
  state.subscribe(["cause"], ({ cause }) => state.set({ effect: cause * 2 }));
  state.subscribe(["effect"], ({ effect }) => effects.push(effect));
  state.set({ cause: 21 });
  await microtasks();
  assert.deepEqual(effects, [42]);
});
