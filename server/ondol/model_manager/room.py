"""Makes room on the device for a model that is being loaded.

Knows leases and phases, nothing about engines. The invariant: who does not leave in the end is served as
before; no stream is cut.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from ondol.engine.messages import LoadPlan
from ondol.errors import NoRoomYet
from ondol.model_manager.memory_budget import Claim, MemoryBudget, Resident, choose_victims
from ondol.model_manager.model_slot import ModelSlot
from ondol.model_manager.model_status import StageProgress

RETRY_AFTER_S = 5


class Room:
    """One device's memory and the models in it.

    Args:
        budget: who holds how much.
        slots: all models by name.
        unload: ends a model's engine and releases its reservation.
        wait_s: how long a load waits for streams of those that are to leave.
    """

    def __init__(
        self,
        budget: MemoryBudget,
        slots: Mapping[str, ModelSlot],
        unload: Callable[[ModelSlot], Awaitable[None]],
        wait_s: float,
    ) -> None:
        self._budget = budget
        self._slots = slots
        self._unload = unload
        self._wait_s = wait_s

    def reachable_bytes(self, *, may_evict_pinned: bool) -> int:
        """What would be free if everybody left who may be asked to."""
        staying = (resident for resident in self._residents() if resident.is_pinned and not may_evict_pinned)
        return max(0, self._budget.total_bytes - sum(resident.size_bytes for resident in staying))

    async def make(self, slot: ModelSlot, plan: LoadPlan, *, may_evict_pinned: bool) -> int:
        """Reserve what the plan needs, others leaving if they must; the KV cache's size in bytes.

        One at a time.

        Raises:
            DoesNotFit: it could not fit even then.
            NoRoomYet: streams of those that would have to leave did not end in time.
        """
        budget = self._budget
        budget.observe(plan.free_bytes)
        claim = Claim.of(
            slot.name,
            plan,
            share_bytes=budget.share_bytes,
            reachable_bytes=self.reachable_bytes(may_evict_pinned=may_evict_pinned),
        )
        victims = choose_victims(
            budget, self._residents(), claim.needed_bytes, may_evict_pinned=may_evict_pinned
        )
        if victims is None:  # places that pinned models took after this one was let in
            raise NoRoomYet(slot.name, RETRY_AFTER_S)
        if victims:
            slot.report(StageProgress("waiting"))
            await self._evict(slot, [self._slots[victim.name] for victim in victims])
        kv_cache_bytes = claim.kv_within(budget.free_bytes)
        budget.reserve(slot.name, claim.fixed_bytes + kv_cache_bytes)
        return kv_cache_bytes

    async def _evict(self, slot: ModelSlot, victims: Sequence[ModelSlot]) -> None:
        asked = [victim for victim in victims if victim.phase == "loaded"]
        for victim in asked:
            victim.begin_leaving()
        try:
            async with asyncio.timeout(self._wait_s):
                for victim in victims:
                    await victim.wait_until_idle()
        except BaseException as error:
            for victim in asked:
                victim.stay()
            if isinstance(error, TimeoutError):
                raise NoRoomYet(slot.name, RETRY_AFTER_S) from error
            raise
        for victim in victims:
            await self._unload(victim)

    def _residents(self) -> list[Resident]:
        """Everybody who holds memory; one whose engine has died is the first to leave."""
        return [
            Resident(
                name=slot.name,
                size_bytes=self._budget.reserved_by(slot.name),
                last_used_s=slot.last_used_s,
                num_leases=0 if slot.is_dead else slot.num_leases,
                is_pinned=slot.order.is_pinned and not slot.is_dead,
            )
            for slot in self._slots.values()
            if self._budget.reserved_by(slot.name) > 0
        ]
