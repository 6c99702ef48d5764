"""Steps of single tokens as CUDA graphs: one launch for a whole forward pass.

Knows when to record and when to replay, nothing about what a step computes. Invariants: a step computes the
same whether it is replayed, or called because it is not recorded; what is recorded has been called before, so
that nothing is compiled meanwhile.

On a CPU the same calls are made over the same buffers; recording one gives the call itself.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable
from typing import Protocol

import torch

from ondol.engine.step_sizes import StepSize, StepSizes, can_be_recorded

# Graphs that an engine may hold: each takes some memory of the driver's.
MAX_NUM_GRAPHS = 128

logger = logging.getLogger(__name__)


class Recorder(Protocol):
    """Turns a call into one that can be repeated."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """What repeats `work` on the same memory; `work` is not carried out."""
        ...


class CallRecorder:
    """Repeats a call by calling it: what a CPU does."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """The call itself."""
        return work


class CudaRecorder:
    """Records CUDA graphs that share one pool of memory, so they must not run side by side."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """A graph of what `work` launches."""
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            try:
                # Other threads' calls do not end the recording; this engine has none that uses the device.
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                work()
                graph.capture_end()
            except Exception:
                self._abandon(graph)
                raise
        torch.cuda.current_stream().wait_stream(self._stream)
        return graph.replay

    def _abandon(self, graph: torch.cuda.CUDAGraph) -> None:
        """End a recording in which something failed, for torch's allocator as well.

        Where that fails too, torch 2.13 takes the recording to go on for good: the allocator frees no cached
        memory where a step needs some, and cannot be emptied. What was done already fails here, and may.
        """
        with contextlib.suppress(RuntimeError):
            graph.capture_end()
        with contextlib.suppress(RuntimeError):
            device = torch.cuda.current_device()
            torch._C._cuda_endAllocateToPool(device, self._pool)
            torch._C._cuda_releasePool(device, self._pool)


class DecodeGraphs:
    """The graphs of one engine.

    Args:
        sizes: which there are.
        work: computes a step of a size over the static buffers.
        recorder: of the device.
    """

    def __init__(self, sizes: StepSizes, work: Callable[[StepSize], None], recorder: Recorder) -> None:
        self._sizes = sizes
        self._work = work
        self._recorder = recorder
        # None while a size has only been called.
        self._replays: dict[StepSize, Callable[[], None] | None] = {}
        self._num_recorded = 0
        self._refusal: str | None = None

    @property
    def num_possible(self) -> int:
        """Graphs that there may ever be."""
        return min(MAX_NUM_GRAPHS, len(self._sizes.recorded()))

    @property
    def refusal(self) -> str | None:
        """Why nothing more is recorded, for a user to read; None while the device does as it is told."""
        return self._refusal

    def run(self, num_rows: int, context_len: int) -> None:
        """Compute a step of `num_rows` requests whose contexts are at most `context_len` long."""
        size = self._sizes.of(num_rows, context_len)
        replay = self._replays.get(size)
        if replay is None and size in self._replays and self._can_record(size):
            replay = self._record(size)
        if replay is not None:
            replay()
            return
        self._work(size)
        self._replays.setdefault(size, None)

    def record_ahead(
        self,
        *,
        count: int = MAX_NUM_GRAPHS,
        budget_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> int:
        """Record the first `count` sizes, as long as there is time; how many of them there are then.

        To be called before there is a request: the buffers hold padding alone.
        """
        deadline_s = clock() + budget_s
        sizes = self._sizes.recorded()[:count]
        for size in sizes:
            if self._replays.get(size) is None and clock() < deadline_s and self._can_record(size):
                self._work(size)
                self._record(size)
        return sum(self._replays.get(size) is not None for size in sizes)

    def _can_record(self, size: StepSize) -> bool:
        return self._refusal is None and self._num_recorded < MAX_NUM_GRAPHS and can_be_recorded(size)

    def _record(self, size: StepSize) -> Callable[[], None] | None:
        """Record a size that was called before; None, now and from now on, if the device refuses."""
        try:
            replay = self._recorder.record(lambda: self._work(size))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            self._refusal = f"decode steps run without CUDA graphs, which the device refused: {reason}"
            logger.warning("%s", self._refusal)
            return None
        self._replays[size] = replay
        self._num_recorded += 1
        return replay
