"""The workloads: which requests are sent, how long they are, and which of them at the same time.

A plan is data and knows nothing about texts, servers or clocks; targets turn its keys into prompts.
Invariant: equal name, sizes, seed and repeat give equal plans, and no two repeats share a prompt,
so a prefix cache helps only where a workload is about prefix caching.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

UNSHARED_TOKENS = 64


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """One request to send.

    Attributes:
        role: what the request is for; figures are also given per role.
        key: decides the text of the prompt, together with its length.
        num_input_tokens: length of the whole prompt as the server should count it.
        num_output_tokens: tokens to generate.
        prefix_key, num_prefix_tokens: the first tokens come from this key instead.
    """

    role: str
    key: str
    num_input_tokens: int
    num_output_tokens: int
    prefix_key: str = ""
    num_prefix_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Phase:
    """Requests sent in order, `concurrency` of them open at a time."""

    requests: tuple[PlannedRequest, ...]
    concurrency: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One run of a workload.

    `background` requests start first and together; the phases begin when each of them has produced
    text, and send nothing more once all of them have ended.
    """

    phases: tuple[Phase, ...]
    background: tuple[PlannedRequest, ...] = ()


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a workload is: requests, streams at a time, and tokens of one request."""

    num_requests: int
    concurrency: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Workload:
    """A named kind of load, its usual sizes, and how a plan is made from sizes and a run's key.

    `is_about_latency` marks loads whose rates say little, so that no ceiling stands beside them.
    """

    name: str
    purpose: str
    sizes: Sizes
    build: Callable[[Sizes, str], Plan]
    is_about_latency: bool = False

    def plan(self, sizes: Sizes, seed: int, repeat: int) -> Plan:
        """The requests of one repeat (counted from 0)."""
        return self.build(sizes, f"{seed}/{self.name}/{repeat}")


def _uniform(sizes: Sizes, run_key: str) -> Plan:
    requests = tuple(
        PlannedRequest("chat", f"{run_key}/{index}", sizes.input_tokens, sizes.output_tokens)
        for index in range(sizes.num_requests)
    )
    return Plan((Phase(requests, sizes.concurrency),))


def _mixed_lengths(sizes: Sizes, run_key: str) -> Plan:
    """Lengths cycle around the given ones; the cycles are coprime, so all pairs of lengths occur."""
    input_shares = (0.25, 1.0, 0.5, 2.25)
    output_shares = (1.0, 0.5, 1.5)
    requests = tuple(
        PlannedRequest(
            "chat",
            f"{run_key}/{index}",
            max(1, round(sizes.input_tokens * input_shares[index % len(input_shares)])),
            max(1, round(sizes.output_tokens * output_shares[index % len(output_shares)])),
        )
        for index in range(sizes.num_requests)
    )
    return Plan((Phase(requests, sizes.concurrency),))


def _shared_prefix(sizes: Sizes, run_key: str) -> Plan:
    """One request pays for the prefix, alone; the rest come when it is there to be shared."""
    num_prefix_tokens = max(1, sizes.input_tokens - UNSHARED_TOKENS)

    def request(index: int) -> PlannedRequest:
        return PlannedRequest(
            role="warm" if index else "cold",
            key=f"{run_key}/{index}",
            num_input_tokens=sizes.input_tokens,
            num_output_tokens=sizes.output_tokens,
            prefix_key=f"{run_key}/prefix",
            num_prefix_tokens=num_prefix_tokens,
        )

    warm = tuple(request(index) for index in range(1, sizes.num_requests))
    return Plan((Phase((request(0),), 1), Phase(warm, sizes.concurrency)))


def _decoders_and_arrivals(sizes: Sizes, run_key: str) -> Plan:
    """`concurrency` short-prompt decoders; `num_requests` long prompts come one after another."""
    decoders = tuple(
        PlannedRequest("decoder", f"{run_key}/decoder/{index}", UNSHARED_TOKENS, sizes.output_tokens)
        for index in range(sizes.concurrency)
    )
    arrivals = tuple(
        PlannedRequest("arrival", f"{run_key}/arrival/{index}", sizes.input_tokens, 8)
        for index in range(sizes.num_requests)
    )
    return Plan((Phase(arrivals, 1),), decoders)


_ALL_WORKLOADS = (
    Workload("single", "one stream at a time", Sizes(4, 1, 128, 128), _uniform),
    Workload("concurrent", "16 concurrent chats of mixed lengths", Sizes(32, 16, 128, 128), _mixed_lengths),
    Workload(
        "shared-prefix", "chats that begin with the same 1,000 tokens", Sizes(16, 4, 1064, 32), _shared_prefix
    ),
    Workload("long-prompt", "long prompts, short answers", Sizes(4, 1, 3000, 32), _uniform),
    Workload(
        "mixed",
        "steady decoders while long prompts arrive",
        Sizes(4, 4, 1500, 256),
        _decoders_and_arrivals,
        is_about_latency=True,
    ),
    Workload("throughput", "1000 tokens in, 1000 tokens out", Sizes(16, 16, 1000, 1000), _uniform),
)

WORKLOADS = MappingProxyType({workload.name: workload for workload in _ALL_WORKLOADS})
