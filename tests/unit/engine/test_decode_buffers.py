"""Buffers that never move, and the host's mirror of them: only what has changed is sent."""

import pytest
import torch

from ondol.engine import decode_buffers
from ondol.engine.batch import ScheduledRequest
from ondol.engine.decode_buffers import BufferSize, DecodeBuffers
from ondol.engine.ragged_inputs import SampledTokens
from ondol.engine.request import Request
from ondol.engine.sampling_params import SamplingParams

CPU = torch.device("cpu")
SIZE = BufferSize(num_rows=4, max_blocks=5, block_size=2, vocab_size=7, scratch_block=99)


class Device:
    """Plays the part of a decode step over the buffers: every row samples 100 plus its number."""

    def __init__(self, *, fills_tables: bool = False) -> None:
        self.buffers = DecodeBuffers(SIZE, CPU, fills_tables=fills_tables)
        self.sampled: SampledTokens | None = None

    def step(self, *requests: Request) -> list[str]:
        """Place the requests' next tokens and run; who has which row."""
        items = []
        for request in requests:
            start = request.num_expected_tokens - 1
            while len(request.block_ids) * SIZE.block_size <= start:
                request.block_ids.append(10 * int(request.request_id) + len(request.block_ids))
            items.append(ScheduledRequest(request, start, 1, completes=True, samples=True))
        placed = self.buffers.place(items, self.sampled)
        for row, item in enumerate(placed):
            assert int(self.buffers.positions[row]) == item.start
            num_blocks = len(item.request.block_ids)
            assert self.buffers.block_tables[row, :num_blocks].tolist() == item.request.block_ids
            item.request.num_pending_tokens += 1
        for row in range(len(placed), SIZE.num_rows):
            assert int(self.buffers.positions[row]) == int(self.buffers.token_ids[row]) == 0
            assert int(self.buffers.block_tables[row, 0]) == SIZE.scratch_block
        assert self.buffers.advances.tolist() == [1] * len(placed) + [0] * (SIZE.num_rows - len(placed))
        self.buffers.positions += self.buffers.advances
        token_ids = torch.arange(100, 100 + len(placed))
        self.buffers.token_ids[: len(placed)].copy_(token_ids)
        places = {item.request: row for row, item in enumerate(placed)}
        self.sampled = SampledTokens(token_ids, places)
        return [item.request.request_id for item in placed]


def make_request(number: int, num_tokens: int = 3) -> Request:
    return Request(str(number), list(range(1, num_tokens + 1)), num_tokens, SamplingParams(max_tokens=9))


@pytest.fixture
def sends(monkeypatch):
    """How often something was sent to the device."""
    found: list[int] = []
    send = decode_buffers.Packing.send

    def counted(self, device):
        found.append(1)
        return send(self, device)

    monkeypatch.setattr(decode_buffers.Packing, "send", counted)
    return found


def test_a_newcomer_brings_its_last_token(sends):
    device = Device()
    device.buffers.place([ScheduledRequest(make_request(1), 2, 1, completes=True, samples=True)], None)
    assert device.buffers.token_ids.tolist() == [3, 0, 0, 0]
    assert sends == [1]


def test_nothing_is_sent_and_nothing_moves_while_nothing_changes(sends):
    device = Device()
    requests = [make_request(1), make_request(2)]
    device.step(*requests)
    tensors = (device.buffers.token_ids, device.buffers.positions, device.buffers.block_tables)
    addresses = [tensor.data_ptr() for tensor in tensors]
    sends.clear()
    # The third position fills its block, the fourth begins another one.
    device.step(*requests)
    assert sends == []
    device.step(*requests)
    assert sends == [1]
    buffers = device.buffers
    now = (buffers.token_ids, buffers.positions, buffers.block_tables)
    assert [tensor.data_ptr() for tensor in now] == addresses


def test_who_stays_keeps_its_row_and_the_last_one_fills_a_gap_with_its_pending_token():
    device = Device()
    first, second, third = (make_request(number) for number in (1, 2, 3))
    assert device.step(first, second, third) == ["1", "2", "3"]
    assert device.step(second, third) == ["3", "2"]
    device.buffers.place(
        [ScheduledRequest(one, 4, 1, completes=True, samples=True) for one in (second, third)], device.sampled
    )
    assert device.buffers.token_ids.tolist()[:2] == [100, 101]


def test_a_gap_is_filled_by_a_newcomer():
    device = Device()
    first, second, third = (make_request(number) for number in (1, 2, 3))
    device.step(first, second)
    assert device.step(second, third) == ["3", "2"]


def test_a_step_elsewhere_is_caught_up_with_position_and_pending_token():
    device = Device()
    request = make_request(1)
    device.step(request)
    # Another path computes a step; the token that it sampled is pending.
    request.token_ids.append(100)
    device.sampled = SampledTokens(torch.tensor([7, 55]), {request: 1})
    request.block_ids.append(12)
    device.buffers.place([ScheduledRequest(request, 4, 1, completes=True, samples=True)], device.sampled)
    assert (int(device.buffers.token_ids[0]), int(device.buffers.positions[0])) == (55, 4)


def test_a_request_that_was_preempted_is_written_anew():
    device = Device()
    request = make_request(1)
    device.step(request)
    request.block_ids = [70, 71, 72]
    request.token_ids += [100]
    request.num_pending_tokens = 0
    device.buffers.place([ScheduledRequest(request, 3, 1, completes=True, samples=True)], device.sampled)
    assert device.buffers.block_tables[0, :3].tolist() == [70, 71, 72]
    assert int(device.buffers.token_ids[0]) == 100


def test_tables_are_filled_up_with_own_blocks_where_attention_reads_them():
    device = Device(fills_tables=True)
    first, second = make_request(1), make_request(2)
    device.step(first, second)
    assert device.buffers.block_tables[0].tolist() == [10, 11, 11, 11, 11]
    device.step(first)
    assert device.buffers.block_tables[1].tolist() == [99] * 5


def test_a_reset_leaves_padding_alone():
    device = Device()
    device.step(make_request(1), make_request(2))
    device.buffers.reset()
    device.sampled = None
    assert device.buffers.advances.tolist() == [0] * 4
    assert device.step(make_request(3)) == ["3"]
