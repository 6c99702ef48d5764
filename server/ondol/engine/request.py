"""One request as the engine sees it: token ids, how many of them are computed, and where.

Knows nothing about scheduling policy or tensors. A step may be launched before the tokens of the one
before are read; those are pending: they count, but nobody on the host knows which they are. Invariant:
to work launched from now on, `num_computed_tokens` leading tokens have their keys and values in the
blocks of `block_ids`, never more.
"""

from array import array
from dataclasses import dataclass, field

from ondol.engine.grammar import TokenMatcher
from ondol.engine.messages import FinishReason, TokenLogprob
from ondol.engine.sampling_params import SamplingParams
from ondol.engine.token_counts import TokenCounts


@dataclass(slots=True, eq=False)
class Request:
    """Mutable state of one open request; owned by the engine's thread.

    Attributes:
        token_ids: prompt followed by output; grows by one per sampled token.
        num_prompt_tokens: length of the prompt part.
        num_computed_tokens: leading tokens whose keys and values are in the cache, or will be before
            anything that is launched later runs.
        num_pending_tokens: sampled by steps whose results have not been read; they follow `token_ids`.
        num_cached_tokens: prompt tokens that the prefix cache supplied at first admission.
        block_ids: KV blocks in order of position.
        block_hashes: chained hashes of the leading full blocks of `token_ids`, as far as computed.
        num_registered_blocks: leading blocks that the prefix cache already knows.
        end_token_ids: ids that end this request with finish_reason "stop".
        cache_salt: it shares cached prefixes only with requests of an equal salt.
        priority: lower is earlier; see `scheduler.py`.
        matcher: state of the request's grammar; None if it has none.
        prompt_logprobs: of the leading prompt tokens, as far as computed; None if nobody waits for them.
        started_s: monotonic time of the first admission.
        is_open: whether its tokens are still wanted; once False it stays so.
    """

    request_id: str
    token_ids: list[int]
    num_prompt_tokens: int
    params: SamplingParams
    end_token_ids: frozenset[int] = frozenset()
    cache_salt: str = ""
    priority: int = 0
    num_computed_tokens: int = 0
    num_pending_tokens: int = 0
    num_cached_tokens: int | None = None
    block_ids: list[int] = field(default_factory=list)
    block_hashes: list[bytes] = field(default_factory=list)
    num_registered_blocks: int = 0
    matcher: TokenMatcher | None = None
    prompt_logprobs: list[TokenLogprob | None] | None = None
    started_s: float | None = None
    is_open: bool = True
    _all_counts: TokenCounts | None = None
    _output_counts: TokenCounts | None = None

    @property
    def num_tokens(self) -> int:
        """Prompt and output tokens known so far."""
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        """Tokens generated so far."""
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def num_expected_tokens(self) -> int:
        """Tokens known so far and pending ones."""
        return len(self.token_ids) + self.num_pending_tokens

    @property
    def num_uncomputed_tokens(self) -> int:
        """Tokens, pending ones too, that still need a forward pass; 1 while decoding."""
        return len(self.token_ids) + self.num_pending_tokens - self.num_computed_tokens

    @property
    def is_ending(self) -> bool:
        """Whether the pending tokens are the last ones: there is nothing to compute after them."""
        num_new_tokens = len(self.token_ids) + self.num_pending_tokens - self.num_prompt_tokens
        return self.num_pending_tokens > 0 and num_new_tokens >= self.params.max_tokens

    @property
    def needs_prompt_logprobs(self) -> bool:
        """Whether prompt tokens must be computed whose keys and values the cache may hold already."""
        return self.prompt_logprobs is not None and len(self.prompt_logprobs) < self.num_prompt_tokens

    def output_ids(self) -> list[int]:
        """The generated tokens, copied."""
        return self.token_ids[self.num_prompt_tokens :]

    def count_tokens(self) -> TokenCounts:
        """How often each token is known to be in prompt and output; for who asks again and again."""
        if self._all_counts is None:
            self._all_counts = TokenCounts(0)
        self._all_counts.catch_up(self.token_ids)
        return self._all_counts

    def count_output_tokens(self) -> TokenCounts:
        """The same of the output alone."""
        if self._output_counts is None:
            self._output_counts = TokenCounts(self.num_prompt_tokens)
        self._output_counts.catch_up(self.token_ids)
        return self._output_counts

    def bytes_of_tokens(self, start: int, stop: int) -> bytes:
        """The ids of a range as bytes, for hashing."""
        return array("q", self.token_ids[start:stop]).tobytes()

    def add_output_token(self, token_id: int) -> str | None:
        """Add a sampled token; adds nothing and returns the reason if the grammar cannot follow it."""
        if self.matcher is not None:
            self.matcher.advance([token_id])
            if self.matcher.error is not None:
                return f"the grammar cannot go on: {self.matcher.error}"
        self.token_ids.append(token_id)
        return None

    def finish_reason(self) -> FinishReason | None:
        """Whether the newest output token ends the request, and why."""
        num_output_tokens, params = self.num_output_tokens, self.params
        if num_output_tokens == 0:
            return "length" if params.max_tokens == 0 else None
        if self.matcher is not None and self.matcher.is_complete:
            return "stop"
        if self.token_ids[-1] in self.end_token_ids and num_output_tokens > params.min_tokens:
            return "stop"
        return "length" if num_output_tokens >= params.max_tokens else None
