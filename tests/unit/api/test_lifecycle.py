from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest

from ondol.api.lifecycle import Lifecycle
from ondol.errors import Draining, Loading

pytestmark = pytest.mark.anyio


def test_nobody_comes_in_while_the_model_loads():
    with pytest.raises(Loading), Lifecycle().open_request():
        pass


def test_open_requests_are_counted_until_they_end():
    lifecycle = Lifecycle()
    lifecycle.mark_ready()
    with lifecycle.open_request():
        with lifecycle.open_request():
            assert lifecycle.num_open == 2
        assert lifecycle.num_open == 1
    assert lifecycle.num_open == 0


def test_a_request_that_fails_is_not_open_any_more():
    lifecycle = Lifecycle()
    lifecycle.mark_ready()
    with suppress(RuntimeError), lifecycle.open_request():
        raise RuntimeError
    assert lifecycle.num_open == 0


def test_after_a_drain_began_open_requests_go_on_and_nobody_comes_in():
    lifecycle = Lifecycle()
    lifecycle.mark_ready()
    with lifecycle.open_request():
        lifecycle.begin_drain()
        with pytest.raises(Draining), lifecycle.open_request():
            pass
        assert lifecycle.num_open == 1


def test_a_model_that_becomes_ready_during_a_drain_does_not_reopen_the_door():
    lifecycle = Lifecycle()
    lifecycle.begin_drain()
    lifecycle.mark_ready()
    assert lifecycle.phase == "draining"


async def test_a_cut_cancels_scopes_now_and_those_to_come():
    lifecycle = Lifecycle()
    lifecycle.mark_ready()
    with anyio.CancelScope() as present, lifecycle.cutting(present):
        lifecycle.cut()
        await anyio.sleep_forever()
    with anyio.CancelScope() as late, lifecycle.cutting(late):
        await anyio.sleep_forever()
    assert present.cancelled_caught
    assert late.cancelled_caught
    assert lifecycle.phase == "draining"


async def test_a_scope_that_ended_is_not_cancelled_afterwards():
    lifecycle = Lifecycle()
    with anyio.CancelScope() as scope, lifecycle.cutting(scope):
        await anyio.lowlevel.checkpoint()
    lifecycle.cut()
    assert not scope.cancel_called
