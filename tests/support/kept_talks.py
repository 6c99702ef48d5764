"""Conversations that a browser has kept from earlier days, written as the page itself writes them.

Knows nothing about daemons. Invariant: afterwards the page shows these conversations and no others.
"""

from collections.abc import Sequence
from typing import NamedTuple

from playwright.sync_api import Page

SEED = """async (talks) => {
  const { append, createConversation, newId } = await import("/conversation.js");
  const { openStore } = await import("/store/store.js");
  const store = await openStore({ newId });
  await store.removeAll();
  for (const [title, content, numDays, isPinned] of talks) {
    const made = append(createConversation({ title, isPinned }), { role: "user", content }).conversation;
    await store.save({ ...made, updatedAt: Date.now() - numDays * 86_400_000 });
  }
}"""


class Talk(NamedTuple):
    """A conversation of one question."""

    title: str
    question: str
    num_days_since: int
    is_pinned: bool = False


def keep_talks(page: Page, talks: Sequence[Talk]) -> None:
    """Put them into the page's database and load the page again."""
    page.wait_for_selector("#composer-input")
    page.evaluate(SEED, [list(talk) for talk in talks])
    page.reload()
    page.wait_for_selector("#composer-input")
