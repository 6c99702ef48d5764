"""A model runner without a model: the next token is a function of the tokens so far.

It keeps a paged cache of its own, of token ids instead of keys and values, and reads every request's
history back through its block table. A block that is shared wrongly, overwritten or lost therefore
changes the tokens, as it would with a real model.
"""

from ondol.engine.batch import Batch, StepResult

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


class FakeRunner:
    """Satisfies `core.Runner`.

    Args:
        num_blocks, block_size: of the pool.
        max_num_batched_tokens: asserted in every step.
    """

    def __init__(self, num_blocks: int, block_size: int, max_num_batched_tokens: int) -> None:
        self._cache: list[list[int | None]] = [[None] * block_size for _ in range(num_blocks)]
        self._block_size = block_size
        self._max_num_batched_tokens = max_num_batched_tokens
        self.num_steps = 0
        self.failing_tokens: frozenset[int] = frozenset()

    def run(self, batch: Batch) -> StepResult:
        """Store the batch's tokens, read every history back, answer from what was read."""
        self.num_steps += 1
        assert 0 < batch.num_tokens <= self._max_num_batched_tokens
        for item in batch.scheduled:
            for position in range(item.start, item.stop):
                block = item.request.block_ids[position // self._block_size]
                self._cache[block][position % self._block_size] = item.request.token_ids[position]
        token_ids = [self._answer(item.request.block_ids, item.stop) for item in batch.sampling()]
        failed = [item for item, token in zip(batch.sampling(), token_ids, strict=True) if token is None]
        return StepResult(token_ids, {item.request.request_id: NOT_FINITE for item in failed})

    def _answer(self, block_ids: list[int], stop: int) -> int | None:
        history = []
        for position in range(stop):
            token = self._cache[block_ids[position // self._block_size]][position % self._block_size]
            assert token is not None, "read a slot that nobody wrote"
            history.append(token)
        if self.failing_tokens & set(history):
            return None
        return next_token(tuple(history))
