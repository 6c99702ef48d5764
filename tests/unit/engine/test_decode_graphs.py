"""When a step is called, recorded and replayed; the recorder is scripted, the sizes are real."""

import contextlib
from collections.abc import Callable

import pytest
import torch

from ondol.engine.decode_graphs import CudaRecorder, DecodeGraphs
from ondol.engine.step_sizes import MAX_POSITIONS, StepSize, StepSizes

SIZES = StepSizes(8, 2048)


class ScriptedRecorder:
    """Notes what it records; refuses from a given record on."""

    def __init__(self, num_allowed: int = 1000) -> None:
        self.num_allowed = num_allowed
        self.log: list[str] = []

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        if self.num_allowed == 0:
            raise RuntimeError("operation not permitted\nwhen stream is capturing")
        self.num_allowed -= 1
        self.log.append("record")
        return lambda: self.log.append("replay")


@pytest.fixture
def recorder():
    return ScriptedRecorder()


def make_graphs(recorder: ScriptedRecorder, sizes: StepSizes = SIZES) -> DecodeGraphs:
    return DecodeGraphs(
        sizes, lambda size: recorder.log.append(f"{size.num_rows}x{size.max_context_len}"), recorder
    )


def test_a_size_is_called_first_recorded_second_and_replayed_from_then_on(recorder):
    graphs = make_graphs(recorder)
    for _ in range(3):
        graphs.run(3, 10)
    assert recorder.log == ["4x1024", "record", "replay", "replay"]


def test_a_longer_context_is_another_size(recorder):
    graphs = make_graphs(recorder)
    for context_len in (1024, 1025, 1024):
        graphs.run(1, context_len)
    assert recorder.log == ["1x1024", "1x2048", "record", "replay"]


def test_what_is_recorded_ahead_was_called_before_and_is_replayed_at_once(recorder):
    graphs = make_graphs(recorder)
    assert graphs.record_ahead(count=2) == 2
    assert recorder.log == ["8x2048", "record", "8x1024", "record"]
    graphs.run(8, 2048)
    assert recorder.log[-1] == "replay"


def test_recording_ahead_ends_with_its_time(recorder):
    graphs = make_graphs(recorder)
    clock = iter(range(100))
    assert graphs.record_ahead(budget_s=3.0, clock=lambda: next(clock)) == 2


def test_a_device_that_refuses_to_record_is_not_asked_again(caplog):
    recorder = ScriptedRecorder(num_allowed=1)
    graphs = make_graphs(recorder)
    assert graphs.record_ahead() == 1
    refusal = "which the device refused: operation not permitted when stream is capturing"
    assert graphs.refusal == f"decode steps run without CUDA graphs, {refusal}"
    assert [record.getMessage() for record in caplog.records] == [graphs.refusal]
    recorder.log.clear()
    graphs.run(1, 5)
    graphs.run(1, 5)
    graphs.run(8, 2048)
    assert recorder.log == ["1x1024", "1x1024", "replay"]


def test_a_step_that_would_take_too_much_memory_is_never_recorded(recorder):
    sizes = StepSizes(256, 32768)
    assert MAX_POSITIONS < 256 * 32768
    assert StepSize(256, 32768) not in sizes.recorded()
    graphs = make_graphs(recorder, sizes)
    for _ in range(3):
        graphs.run(256, 32768)
    assert recorder.log == ["256x32768"] * 3


class FakeCuda:
    """Torch's recording without a device: what was called, and what the allocator takes to be under way.

    `fails_to_end` is how torch is where something failed in a recording.
    """

    def __init__(self, monkeypatch, *, fails_to_end: bool) -> None:
        self.fails_to_end = fails_to_end
        self.recording_pools: list[tuple[int, int]] = []
        self.num_references = 0
        for name, fake in {
            "CUDAGraph": lambda: self,
            "Stream": lambda: self,
            "stream": lambda stream: contextlib.nullcontext(),
            "current_stream": lambda: self,
            "current_device": lambda: 0,
            "graph_pool_handle": lambda: (0, 7),
        }.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", self.end_allocating, raising=False)
        monkeypatch.setattr(torch._C, "_cuda_releasePool", self.release_pool, raising=False)

    def wait_stream(self, stream):
        assert stream is self

    def capture_begin(self, pool, capture_error_mode):
        self.recording_pools.append(pool)
        self.num_references += 1

    def capture_end(self):
        if self.fails_to_end:
            raise RuntimeError("operation failed due to a previous error during capture")
        self.end_allocating(0, (0, 7))

    def end_allocating(self, device, pool):
        if pool not in self.recording_pools:
            raise RuntimeError("not currently recording to mempool_id")
        self.recording_pools.remove(pool)

    def release_pool(self, device, pool):
        self.num_references -= 1

    def replay(self):
        """As a graph."""


def fail():
    raise RuntimeError("operation not permitted when stream is capturing")


def test_a_recording_that_cannot_be_ended_is_over_for_the_allocator_and_says_what_went_wrong_first(
    monkeypatch,
):
    cuda = FakeCuda(monkeypatch, fails_to_end=True)
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        CudaRecorder().record(fail)
    assert cuda.recording_pools == []
    assert cuda.num_references == 0


def test_a_recording_that_can_be_ended_is_ended_once(monkeypatch):
    cuda = FakeCuda(monkeypatch, fails_to_end=False)
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        CudaRecorder().record(fail)
    assert cuda.recording_pools == []
    # The graph gives the pool back itself.
    assert cuda.num_references == 1
    assert CudaRecorder().record(lambda: None) == cuda.replay
