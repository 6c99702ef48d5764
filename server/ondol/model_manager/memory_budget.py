"""The memory that all loaded models of a device share, and who has to leave when another comes.

Pure bookkeeping: knows nothing about engines, time or HTTP. The invariant: what is reserved never exceeds
the budget, and no more models hold a reservation than there are places.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ondol.engine.messages import LoadPlan
from ondol.errors import DoesNotFit


@dataclass(frozen=True, slots=True)
class Resident:
    """A model that holds memory, as a candidate for leaving.

    Attributes:
        last_used_s: on any clock that only goes forward.
    """

    name: str
    size_bytes: int
    last_used_s: float
    num_leases: int = 0
    is_pinned: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """What a planned load asks for.

    Attributes:
        fixed_bytes: weights and workspace.
        min_kv_bytes: KV cache for which others are made to leave.
        kv_bytes: KV cache that it takes if there is that much.
    """

    fixed_bytes: int
    min_kv_bytes: int
    kv_bytes: int

    @property
    def needed_bytes(self) -> int:
        """What has to be free."""
        return self.fixed_bytes + self.min_kv_bytes

    def kv_within(self, free_bytes: int) -> int:
        """The KV cache's size when this much is free, which is at least `needed_bytes`."""
        return min(self.kv_bytes, free_bytes - self.fixed_bytes)

    @classmethod
    def of(cls, name: str, plan: LoadPlan, *, share_bytes: int, reachable_bytes: int) -> "Claim":
        """Decide what a load asks for.

        Args:
            name: the model's, for the error.
            plan: what the engine says it takes.
            share_bytes: an even share of the budget. It is kept to if one request at the context fits into
                it beside the weights; otherwise the model may have all that is free.
            reachable_bytes: what is free when everybody has left who may be asked to.

        Raises:
            DoesNotFit: not even the least fits; carries the numbers.
        """
        spare_bytes = reachable_bytes - plan.fixed_bytes
        if spare_bytes < plan.min_kv_bytes:
            raise DoesNotFit(_too_large(name, plan, reachable_bytes))
        share_kv_bytes = share_bytes - plan.fixed_bytes
        kv_bytes = plan.max_kv_bytes
        if share_kv_bytes >= plan.request_kv_bytes:
            kv_bytes = min(kv_bytes, share_kv_bytes)
        # A context that nobody asked for is shortened before the model is refused.
        return cls(plan.fixed_bytes, min(plan.request_kv_bytes, spare_bytes), kv_bytes)


class MemoryBudget:
    """Reservations of one device.

    Args:
        total_bytes: memory for all models; None takes what `observe` finds.
        max_models: places.
    """

    def __init__(self, total_bytes: int | None, max_models: int) -> None:
        self.max_models = max_models
        self._fixed_bytes = total_bytes
        self._total_bytes = total_bytes or 0
        self._reserved: dict[str, int] = {}

    @property
    def total_bytes(self) -> int:
        """Memory for all models; 0 before anything is known."""
        return self._total_bytes

    @property
    def reserved_bytes(self) -> int:
        """What models hold."""
        return sum(self._reserved.values())

    @property
    def free_bytes(self) -> int:
        """What is left."""
        return max(0, self._total_bytes - self.reserved_bytes)

    @property
    def num_free_places(self) -> int:
        """How many more models may come."""
        return max(0, self.max_models - len(self._reserved))

    @property
    def share_bytes(self) -> int:
        """An even share for each place."""
        return self._total_bytes // self.max_models

    def reserved_by(self, name: str) -> int:
        """What one model holds; 0 if it holds nothing."""
        return self._reserved.get(name, 0)

    def observe(self, free_bytes: int) -> None:
        """Take in what the device has free now, reserve for everybody else already taken off.

        Sets the budget when no model holds anything; later it can only shrink it, when other programs have
        taken memory. A budget that was given stays.
        """
        if self._fixed_bytes is not None:
            return
        present_bytes = free_bytes + self.reserved_bytes
        self._total_bytes = min(self._total_bytes, present_bytes) if self._reserved else present_bytes

    def reserve(self, name: str, size_bytes: int) -> None:
        """Take memory and a place; whoever calls has seen that both are there."""
        assert name not in self._reserved, "a model is loaded once"
        assert self.num_free_places > 0, "there is a place"
        assert size_bytes <= self.free_bytes, "there is room"
        self._reserved[name] = size_bytes

    def release(self, name: str) -> None:
        """Give everything back; a model that holds nothing is no error."""
        self._reserved.pop(name, None)


def choose_victims(
    budget: MemoryBudget,
    residents: Iterable[Resident],
    needed_bytes: int,
    *,
    may_evict_pinned: bool,
) -> tuple[Resident, ...] | None:
    """Who has to leave so that `needed_bytes` and a place are free; None if that cannot be.

    The idle leave before those in use, the least recently used first; pinned ones last, and only if
    `may_evict_pinned`. Nobody leaves for nothing.
    """
    candidates = sorted(
        (resident for resident in residents if may_evict_pinned or not resident.is_pinned),
        key=lambda resident: (resident.is_pinned, resident.num_leases > 0, resident.last_used_s),
    )

    def fits_without(leaving: list[Resident]) -> bool:
        freed_bytes = sum(resident.size_bytes for resident in leaving)
        return budget.free_bytes + freed_bytes >= needed_bytes and budget.num_free_places + len(leaving) > 0

    chosen: list[Resident] = []
    while not fits_without(chosen):
        if not candidates:
            return None
        chosen.append(candidates.pop(0))
    return tuple(_without_superfluous(chosen, fits_without))


def _without_superfluous(
    chosen: list[Resident], fits_without: Callable[[list[Resident]], bool]
) -> list[Resident]:
    """Let those stay whose leaving is not needed after all, the most precious first."""
    kept = list(chosen)
    for resident in reversed(chosen):
        fewer = [other for other in kept if other is not resident]
        if fits_without(fewer):
            kept = fewer
    return kept


def _too_large(name: str, plan: LoadPlan, reachable_bytes: int) -> str:
    return (
        f"'{name}' does not fit: {mib(plan.weights_bytes)} of weights, {mib(plan.workspace_bytes)} of "
        f"workspace and at least {mib(plan.min_kv_bytes)} of KV cache need "
        f"{mib(plan.fixed_bytes + plan.min_kv_bytes)}, but {mib(reachable_bytes)} of {plan.device} memory "
        f"can be had. Lower --max-model-len ({plan.context} now), --kv-cache-memory or --max-num-seqs, "
        f"quantize with --quantization, or raise --memory-budget.{_offload_hint(plan, reachable_bytes)}"
    )


def _offload_hint(plan: LoadPlan, reachable_bytes: int) -> str:
    """The fewest layers in host memory with which it fits; empty where no number of them is enough."""
    weights_limit_bytes = reachable_bytes - plan.workspace_bytes - plan.min_kv_bytes
    enough = (offload for offload in plan.offloads if offload.weights_bytes <= weights_limit_bytes)
    smallest = next(enough, None)
    if smallest is None:
        return ""
    return f" As a last resort, slowly: {smallest.flag}."


def mib(size_bytes: int) -> str:
    """For people."""
    return f"{size_bytes / 2**20:.0f} MiB"
