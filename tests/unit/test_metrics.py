import itertools

from ondol.engine.messages import EngineStats
from ondol.metrics import Metrics, RequestMeter


class Clock:
    """Time as the test says it is."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_latencies_are_measured_from_arrival_to_first_token_and_between_tokens():
    clock = Clock()
    seen: dict[str, list[float]] = {"first": [], "between": [], "duration": [], "tokens": []}
    ended: list[str] = []
    meter = RequestMeter(
        first_token=seen["first"].append,
        inter_token=seen["between"].append,
        duration=seen["duration"].append,
        tokens=seen["tokens"].append,
        ended=ended.append,
        clock=clock,
    )
    for seconds, num_tokens in ((2.0, 1), (0.5, 1), (0.0, 0), (3.0, 3)):
        clock.now_s += seconds
        meter.add_tokens(num_tokens)
    clock.now_s += 1
    meter.end("length")
    assert seen == {"first": [2.0], "between": [0.5, 1.0, 1.0, 1.0], "duration": [6.5], "tokens": [1, 1, 3]}
    assert ended == ["length"]


def test_engine_numbers_are_read_at_each_scrape():
    running = itertools.count(1)
    metrics = Metrics(lambda: [("tiny", EngineStats(num_running=next(running)))])
    first = metrics.value("ondol_requests_running", {"model": "tiny"})
    second = metrics.value("ondol_requests_running", {"model": "tiny"})
    assert second == first + 1


def test_two_daemons_in_one_process_share_no_metrics():
    one, other = Metrics(lambda: ()), Metrics(lambda: ())
    one.start_request("tiny", 5)
    assert one.value("ondol_prompt_tokens_total", {"model": "tiny"}) == 5
    assert other.value("ondol_prompt_tokens_total", {"model": "tiny"}) is None


def test_without_an_engine_there_is_still_something_to_scrape():
    assert b"ondol_requests_running" in Metrics(lambda: ()).exposition()
