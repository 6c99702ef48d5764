"""Long conversations: little of them is in the page, and what is being read stays where it is."""

import pytest
from playwright.sync_api import expect
from support.chat_page import ChatPage
from support.daemon import poll
from support.scripted_answer import Answer

NUM_MESSAGES = 400
PLACE = "(pane) => [pane.scrollTop, pane.scrollHeight - pane.scrollTop - pane.clientHeight]"

# Writes a conversation of so many messages as the page itself would, and tells its id.
SEED = """async (numMessages) => {
  const { append, createConversation, newId } = await import("/conversation.js");
  const { openStore } = await import("/store/store.js");
  let conversation = createConversation({ title: "긴 대화", modelId: "stub" });
  for (let index = 0; index < numMessages; index++) {
    const role = index % 2 ? "assistant" : "user";
    const content = role === "user" ? `물음 ${index}` : `답 ${index}\\n\\n- 하나\\n- 둘`;
    ({ conversation } = append(conversation, { role, content, createdAt: index, finishReason: "stop" }));
  }
  await (await openStore({ newId })).save(conversation);
  return conversation.id;
}"""


@pytest.fixture(scope="module")
def long_page(shared_stub, open_shared_page):
    page = open_shared_page(shared_stub.url)
    page.wait_for_selector("#composer-input")
    conversation_id = page.evaluate(SEED, NUM_MESSAGES)
    page.goto(f"{shared_stub.url}/#c={conversation_id}")
    page.reload()
    return page


@pytest.fixture
def chat(stub, long_page):
    del stub  # only to be as new as the chat
    chat = ChatPage(long_page)
    expect(chat.questions.last).to_be_visible()
    return chat


def pane(chat):
    return chat.page.locator(".messages-pane")


def is_at_end(place):
    _, below = place
    return below <= 1


def to_top(chat):
    expect(chat.page.locator(".messages-older")).to_be_visible()
    pane(chat).evaluate("(pane) => pane.scrollTo(0, 0)")
    expect(chat.page.get_by_role("button", name="맨 아래로")).to_be_visible()


def test_a_long_conversation_opens_at_its_end_with_a_window_of_it(chat):
    expect(chat.page.locator(".messages-older")).to_be_visible()
    expect(chat.page.locator("article")).to_have_count(60)
    expect(chat.answers.last).to_contain_text(f"답 {NUM_MESSAGES - 1}")
    poll(lambda: pane(chat).evaluate(PLACE), is_at_end)


def test_earlier_messages_come_in_without_moving_what_is_read(chat):
    to_top(chat)
    first = chat.questions.filter(has_text=f"물음 {NUM_MESSAGES - 60}")
    before = first.bounding_box()["y"]
    chat.press("이전 메시지 보기")
    expect(chat.page.locator("article")).to_have_count(120)
    # The button above the list goes while the list grows, and comes back.
    expect(chat.page.locator(".messages-older")).to_be_visible()
    assert abs(first.bounding_box()["y"] - before) <= 1


def test_who_reads_above_is_not_moved_by_an_answer_and_gets_back_to_it(stub, chat):
    answer = Answer(tuple("줄\n\n" for _ in range(40)), hold_at=20)
    stub.answers = [answer]
    chat.ask("길게 써 줘")
    expect(chat.page.locator(".message-writing")).to_be_visible()
    expect(chat.answers.last.locator(".message-content p")).to_have_count(20)
    # It is followed while it grows.
    bottom, _ = poll(lambda: pane(chat).evaluate(PLACE), is_at_end)
    pane(chat).hover()
    chat.page.mouse.wheel(0, -400)
    to_end = chat.page.get_by_role("button", name="맨 아래로")
    expect(to_end).to_be_visible()
    top, _ = poll(lambda: pane(chat).evaluate(PLACE), lambda place: place[0] <= bottom - 400)
    answer.resume.set()
    expect(chat.answers.last.locator(".message-content p")).to_have_count(40)
    assert pane(chat).evaluate(PLACE)[0] == top
    to_end.click()
    expect(to_end).to_be_hidden()
    poll(lambda: pane(chat).evaluate(PLACE), is_at_end)


def test_a_message_that_is_worded_anew_is_seen_whole(chat):
    pane(chat).evaluate("(pane) => pane.scrollTo(0, pane.scrollHeight)")
    expect(chat.page.get_by_role("button", name="맨 아래로")).to_be_hidden()
    size = chat.page.viewport_size
    room = chat.questions.last.bounding_box()["y"] - pane(chat).bounding_box()["y"]
    # The question is the first thing in sight, and its editor is taller.
    chat.page.set_viewport_size(size | {"height": size["height"] - int(room) + 20})
    chat.press("고치기", chat.questions.last)
    expect(chat.page.locator(".editor")).to_be_in_viewport(ratio=1)
    expect(chat.page.get_by_role("button", name="맨 아래로")).to_be_visible()
    assert chat.page.locator(".editor").bounding_box()["y"] >= pane(chat).bounding_box()["y"]
    chat.page.keyboard.press("Escape")
    chat.page.set_viewport_size(size)
