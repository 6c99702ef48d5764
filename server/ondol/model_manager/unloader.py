"""The one path by which a loaded model leaves: its engine ends, and its memory is free.

Knows nothing about who wants it to leave, or what for. The invariant: an engine that has begun to end
does so whoever stops waiting for it, and no stream is cut by `drain` or `expire`.
"""

import asyncio

from ondol.model_manager.memory_budget import MemoryBudget
from ondol.model_manager.model_slot import ModelSlot


class Unloader:
    """Unloads the models of one device; `budget` is its memory."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget

    async def unload(self, slot: ModelSlot) -> None:
        """End a loaded model's engine; shared by all who ask for it, stopped by none."""
        self._begin(slot)
        if slot.leaving is not None:
            await asyncio.shield(slot.leaving)

    async def drain(self, slot: ModelSlot) -> None:
        """Unload a model after its last streams; who is cancelled before that lets it stay."""
        slot.begin_leaving()
        try:
            await slot.wait_until_idle()
        except BaseException:
            slot.stay()
            raise
        await self.unload(slot)

    def expire(self, slot: ModelSlot) -> None:
        """Begin to unload a model that nobody has used for as long as it stays."""
        if slot.phase == "loaded" and slot.num_leases == 0:
            self._begin(slot)

    def _begin(self, slot: ModelSlot) -> None:
        if slot.leaving is None and slot.model is not None:
            slot.leaving = asyncio.create_task(self._end_engine(slot), name=f"unload {slot.name}")

    async def _end_engine(self, slot: ModelSlot) -> None:
        assert slot.model is not None, "only a loaded model is unloaded"
        slot.timer.stop()
        if slot.phase != "unloading":
            slot.move("unloading")
        await slot.model.engine.close()
        self._budget.release(slot.name)
        slot.model = slot.memory = slot.leaving = None
        slot.move("unloaded")
