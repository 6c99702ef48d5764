"""The order of copies and computations on a GPU, over streams that only write down what they are told."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from ondol.modeling.layer_copies import SideStreamCopies

GPU = torch.device("cuda")


class Timeline:
    """CUDA's streams and events, as far as they are used; `told` is what they heard."""

    def __init__(self):
        self.told = []
        self.num_streams = 0
        self.num_events = 0
        self.compute = self.stream("compute")

    def stream(self, name="copies"):
        timeline = self

        class Stream:
            device = GPU

            def wait_event(self, event):
                timeline.told.append((name, "waits for", event.name, event.recorded_at))

        return Stream()

    def event(self):
        timeline = self
        number = self.num_events
        self.num_events += 1

        class Event:
            name = number
            recorded_at = None

            def record(self, stream):
                self.recorded_at = len(timeline.told)
                where = "compute" if stream is timeline.compute else "copies"
                timeline.told.append((where, "records", self.name, None))

        return Event()

    @contextmanager
    def on(self, stream):
        self.told.append(("copies" if stream is not self.compute else "compute", "copies", None, None))
        yield


@pytest.fixture
def timeline(monkeypatch):
    timeline = Timeline()
    fake = SimpleNamespace(
        Stream=lambda device: timeline.stream(),
        Event=timeline.event,
        current_stream=lambda device: timeline.compute,
        stream=timeline.on,
    )
    monkeypatch.setattr(torch, "cuda", fake)
    return timeline


def test_a_copy_waits_for_what_read_the_buffer_and_what_reads_it_next_waits_for_the_copy(timeline):
    copies = SideStreamCopies(GPU, 2)
    target, source = torch.zeros(4, dtype=torch.uint8), torch.arange(4, dtype=torch.uint8)
    copies.start(1, target, source)
    copies.wait(1)
    read, written = 1, 3
    assert timeline.told == [
        ("compute", "records", read, None),
        ("copies", "waits for", read, 0),
        ("copies", "copies", None, None),
        ("copies", "records", written, None),
        ("compute", "waits for", written, 3),
    ]
    assert torch.equal(target, source)


def test_the_other_buffers_copy_holds_nobody_up(timeline):
    copies = SideStreamCopies(GPU, 2)
    tensor = torch.zeros(4, dtype=torch.uint8)
    copies.start(0, tensor, tensor)
    copies.start(1, tensor, tensor)
    copies.wait(0)
    assert timeline.told[-1] == ("compute", "waits for", 2, 3)
