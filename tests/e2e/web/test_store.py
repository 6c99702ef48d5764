"""What the browser's own database keeps; tests/web/store.test.mjs asks the same of the store in memory.

Each test takes a second in a browser, and `make test` has room for the main ways only; the others are slow.
"""

import pytest

TALK = """
const { append, createConversation, newId } = await import("/conversation.js");
const { openStore } = await import("/store/store.js");
const talk = (count) => {
  let conversation = createConversation({ title: "제목" });
  for (let index = 0; index < count; index += 1) {
    const role = index % 2 ? "assistant" : "user";
    conversation = append(conversation, { role, content: `말 ${index}`, createdAt: index }).conversation;
  }
  return conversation;
};
"""


@pytest.fixture(scope="module")
def in_page(shared_page):
    """in_page(body) -> what an async function of that body returns; it has `talk` and the store at hand."""
    shared_page.wait_for_selector("#composer-input")
    return lambda body: shared_page.evaluate(f"async () => {{ {TALK} {body} }}")


def test_a_conversation_is_the_same_in_the_next_page(in_page):
    is_persistent, conversation, again = in_page("""
      const store = await openStore({ newId });
      const conversation = { ...talk(3), draft: "쓰다 만", parameters: { temperature: 0 } };
      await store.save(conversation);
      return [store.isPersistent, conversation, await (await openStore({ newId })).load(conversation.id)];
    """)
    assert is_persistent
    assert again == conversation


def test_one_more_message_writes_one_record(in_page):
    assert (
        in_page("""
      const puts = [];
      const put = IDBObjectStore.prototype.put;
      const store = await openStore({ newId });
      const conversation = talk(2000);
      await store.save(conversation);
      IDBObjectStore.prototype.put = function (...args) {
        puts.push(this.name);
        return put.apply(this, args);
      };
      await store.save(append(conversation, { role: "user", content: "하나 더" }).conversation);
      IDBObjectStore.prototype.put = put;
      return puts.sort().join();
    """)
        == "heads,messages"
    )


@pytest.mark.slow
def test_a_conversation_that_another_tab_removed_is_saved_whole(in_page):
    assert (
        in_page("""
      const [here, there] = [await openStore({ newId }), await openStore({ newId })];
      const conversation = talk(3);
      await here.save(conversation);
      await there.remove(conversation.id);
      await here.save(append(conversation, { role: "assistant", content: "답" }).conversation);
      return Object.keys((await there.load(conversation.id)).messages).length;
    """)
        == 4
    )


@pytest.mark.slow
def test_removing_leaves_nothing_behind(in_page):
    assert in_page("""
      const store = await openStore({ newId });
      const [one, other] = [talk(3), talk(2)];
      await store.save(one);
      await store.save(other);
      await store.setSetting("theme", "dark");
      await store.remove(one.id);
      const messages = (await (await import("/store/database.js")).openDatabase(indexedDB)).read;
      const left = [await messages(one.id), (await store.load(other.id)).title];
      await store.removeAll();
      const setting = await store.getSetting("theme");
      await store.setSetting("theme", null);
      return [...left, (await store.list()).length, setting, await store.getSetting("theme") === undefined];
    """) == [None, "제목", 0, "dark", True]


@pytest.mark.slow
def test_a_browser_that_keeps_nothing_says_so(stub, open_page):
    page = open_page(stub.url)
    page.add_init_script("Object.defineProperty(window, 'indexedDB', { value: undefined })")
    page.reload()
    page.get_by_text("창을 닫으면 대화가 사라져요").wait_for()
    page.fill("#composer-input", "그래도 말해요")
    page.keyboard.press("Enter")
    page.get_by_role("log").get_by_text("안녕하세요.").wait_for()
