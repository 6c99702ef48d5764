"""A model runner without a model: the next token is a function of the tokens so far.

It keeps a paged cache of its own, of token ids instead of keys and values, and reads every request's
history back through its block table. A block that is shared wrongly, overwritten or lost therefore
changes the tokens, as it would with a real model. Like a device it computes in the order of launches, and
it alone knows the tokens of launches that nobody has collected.
"""

from ondol.engine.batch import Batch, ScheduledRequest, StepResult

VOCAB_SIZE = 97
NOT_FINITE = "the model computed logits that are not finite"


def next_token(history: tuple[int, ...]) -> int:
    """What the fake model says after `history`; never 0."""
    state = 7
    for token in history:
        state = (state * 31 + token + 1) % 1_000_003
    return 1 + state % (VOCAB_SIZE - 1)


def expected_tokens(prompt_ids: list[int], num_tokens: int) -> list[int]:
    """The fake model's whole answer, computed without an engine."""
    history = list(prompt_ids)
    for _ in range(num_tokens):
        history.append(next_token(tuple(history)))
    return history[len(prompt_ids) :]


class FakeLaunched:
    """What a launch computes; the runner notes that it was read."""

    def __init__(self, runner: "FakeRunner", batch: Batch, token_ids: list[int | None]) -> None:
        self.runner = runner
        self.batch = batch
        self.token_ids = token_ids
        self.number: int | None = None

    def sample(self) -> None:
        """Tell the next launch the tokens; a sampler looks at all tokens before them."""
        assert self.number is None, "sampled twice"
        for item in self.batch.sampling():
            if item.request.is_open:
                assert item.request.num_tokens == item.stop, "sampled before the tokens before are known"
        self.number = self.runner.num_steps
        self.runner.num_steps += 1
        self.runner.pending = {
            item.request.request_id: 0 if token is None else token for item, token in self._sampled()
        }

    def collect(self) -> StepResult:
        """In the order of launches, each once."""
        assert self.number == self.runner.num_collected, "collected unsampled, twice or out of order"
        self.runner.num_collected += 1
        failed = [item.request.request_id for item, token in self._sampled() if token is None]
        return StepResult(self.token_ids, dict.fromkeys(failed, NOT_FINITE))

    def _sampled(self) -> list[tuple[ScheduledRequest, int | None]]:
        return list(zip(self.batch.sampling(), self.token_ids, strict=True))


class FakeRunner:
    """Satisfies `core.Runner`.

    Args:
        num_blocks, block_size: of the pool.
        max_num_batched_tokens: asserted in every step.

    Attributes:
        num_steps, num_collected: launches that were sampled so far, and how many of them were read.
        most_in_flight: launches that were out at the same time, at most.
        pending: the newest tokens, by request id.
        failing_tokens: whose requests compute nothing finite.
    """

    def __init__(self, num_blocks: int, block_size: int, max_num_batched_tokens: int) -> None:
        self._cache: list[list[int | None]] = [[None] * block_size for _ in range(num_blocks)]
        self._block_size = block_size
        self._max_num_batched_tokens = max_num_batched_tokens
        self.num_steps = 0
        self.num_collected = 0
        self.most_in_flight = 0
        self.pending: dict[str, int] = {}
        self.failing_tokens: frozenset[int] = frozenset()

    def launch(self, batch: Batch) -> FakeLaunched:
        """Store the batch's tokens, read every history back, answer from what was read."""
        num_in_flight = self.num_steps + 1 - self.num_collected
        self.most_in_flight = max(self.most_in_flight, num_in_flight)
        assert 0 < batch.num_tokens <= self._max_num_batched_tokens
        for item in batch.scheduled:
            for position in range(item.start, item.stop):
                block = item.request.block_ids[position // self._block_size]
                self._cache[block][position % self._block_size] = self._token(item, position)
        sampling = batch.sampling()
        return FakeLaunched(
            self, batch, [self._answer(item.request.block_ids, item.stop) for item in sampling]
        )

    def _token(self, item: ScheduledRequest, position: int) -> int:
        """What is known, or what the launch before sampled."""
        known = item.request.token_ids
        if position < len(known):
            return known[position]
        assert position == len(known), "only the newest token can be pending"
        return self.pending[item.request.request_id]

    def _answer(self, block_ids: list[int], stop: int) -> int | None:
        history = []
        for position in range(stop):
            token = self._cache[block_ids[position // self._block_size]][position % self._block_size]
            assert token is not None, "read a slot that nobody wrote"
            history.append(token)
        if self.failing_tokens & set(history):
            return None
        return next_token(tuple(history))
