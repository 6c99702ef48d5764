"""Places in the queue: told when they change, not oftener than once a second."""

from ondol.engine.queue_notices import QueueNotices
from ondol.engine.request import Request
from ondol.engine.sampling_params import SamplingParams


class Clock:
    now_s = 5.0

    def __call__(self):
        return self.now_s


def waiting(*request_ids, admitted=()):
    return [
        Request(name, [1], 1, SamplingParams(max_tokens=1), started_s=1.0 if name in admitted else None)
        for name in request_ids
    ]


def places(outputs):
    assert all(output.token_ids == [] and output.finish_reason is None for output in outputs)
    return {output.request_id: output.queue_position for output in outputs}


def test_everybody_who_waits_is_told_the_place_and_again_when_it_changes():
    clock = Clock()
    notices = QueueNotices(clock)
    assert places(notices.take(waiting("a", "b", "c"))) == {"a": 1, "b": 2, "c": 3}
    clock.now_s += 1.0
    assert places(notices.take(waiting("a", "b", "c"))) == {}
    assert places(notices.take(waiting("b", "c", "d"))) == {"b": 1, "c": 2, "d": 3}


def test_within_a_second_nobody_is_told_anything_more():
    clock = Clock()
    notices = QueueNotices(clock)
    notices.take(waiting("a", "b"))
    clock.now_s += 0.9
    assert notices.take(waiting("b", "c")) == []
    clock.now_s += 0.2
    assert places(notices.take(waiting("b", "c"))) == {"b": 1, "c": 2}


def test_a_preempted_request_counts_but_is_not_told():
    assert places(QueueNotices(Clock()).take(waiting("old", "new", admitted=("old",)))) == {"new": 2}


def test_an_empty_queue_says_nothing_and_uses_up_no_time():
    notices = QueueNotices(Clock())
    assert notices.take([]) == []
    assert places(notices.take(waiting("a"))) == {"a": 1}
