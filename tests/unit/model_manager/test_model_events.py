import gc

import pytest

from ondol.model_manager.model_events import ModelEvent, ModelEvents
from ondol.model_manager.model_status import ModelStatus, StageProgress

pytestmark = pytest.mark.anyio


def event(name, phase, done=None):
    kind = "status" if done is None else "progress"
    progress = None if done is None else StageProgress("weights", done, 100)
    return ModelEvent(kind, ModelStatus(name, phase, progress))


async def heard_by(watcher):
    return [event async for event in watcher]


async def test_a_watcher_hears_everything_that_happens_after_it_began():
    events = ModelEvents()
    events.publish(event("a", "loading"))
    watcher = events.watch()
    told = [event("a", "loaded"), event("b", "loading")]
    for one in told:
        events.publish(one)
    events.close()
    assert await heard_by(watcher) == told


async def test_a_slow_watcher_gets_the_latest_of_each_model_and_no_backlog():
    events = ModelEvents()
    watcher = events.watch()
    for done in range(1000):
        events.publish(event("a", "loading", done))
        events.publish(event("b", "downloading", done))
    events.publish(event("a", "loaded"))
    events.close()
    assert await heard_by(watcher) == [event("b", "downloading", 999), event("a", "loaded")]


async def test_a_change_of_status_that_nobody_has_read_is_not_hidden_by_progress():
    events = ModelEvents()
    watcher = events.watch()
    events.publish(event("a", "loading"))
    events.publish(event("a", "loading", 5))
    events.close()
    (heard,) = await heard_by(watcher)
    assert heard.kind == "status"
    assert heard.status.progress.share == 0.05


async def test_watchers_that_left_or_never_began_are_forgotten():
    events = ModelEvents()
    never_begun, left = events.watch(), events.watch()
    events.publish(event("a", "loaded"))
    await anext(left)
    await left.aclose()
    assert events.num_watchers <= 2
    del never_begun, left
    gc.collect()
    assert events.num_watchers == 0


async def test_a_watch_that_begins_after_the_end_ends_at_once():
    events = ModelEvents()
    events.close()
    assert await heard_by(events.watch()) == []


@pytest.mark.parametrize(
    ("done", "total", "share"),
    [(None, None, None), (5, None, None), (5, 0, None), (5, 10, 0.5), (11, 10, 1.0)],
)
def test_a_share_is_known_only_with_both_numbers(done, total, share):
    assert StageProgress("weights", done, total).share == share
