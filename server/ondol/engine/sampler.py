"""Chooses the next token of each row of logits. Stateless.

The random choice is a Gumbel-max whose noise is a hash of (seed, choice, absolute position, token
id): a request's tokens do not depend on what else is in the batch, and a replay from any point
continues with the same tokens. Penalties and bans are functions of the ids so far. Knows nothing
about scheduling.

Order, as in transformers: grammar, bias, penalties, bans, temperature, top-k, top-p, min-p.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ondol.engine.grammar import RowMasks
from ondol.engine.request import Request

MASK_32 = 0xFFFFFFFF
MASK_64 = 0xFFFFFFFFFFFFFFFF
NEVER = float("-inf")
# Below this a temperature is greedy: scaling by it would overflow float32.
MIN_TEMPERATURE = 1e-5
# Candidates that a nucleus is first looked for in; a wider one is found by a full sort.
NUCLEUS_CANDIDATES = 1024


@dataclass(frozen=True, slots=True)
class Sampler:
    """Samples one token per row.

    Attributes:
        token_noise: [vocab_size] int32, a hash of each token id; the row's key is mixed in per step.
    """

    token_noise: Tensor

    @classmethod
    def build(cls, vocab_size: int, device: torch.device) -> "Sampler":
        """A sampler for logits of `vocab_size` columns on `device`."""
        ids = torch.arange(vocab_size, dtype=torch.int64, device=device)
        # An odd multiplier spreads neighbouring ids over all 32 bits before the first mixing.
        return cls(_mix(_as_int32(ids * 0x9E3779B1)))

    @property
    def vocab_size(self) -> int:
        """Columns of the logits."""
        return len(self.token_noise)

    def sample(
        self, logits: Tensor, requests: Sequence[Request], masks: RowMasks | None = None
    ) -> list[int | None]:
        """One token id per row; None where the logits hold NaN or infinity.

        Args:
            logits: [B, vocab_size] float32; changed in place.
            requests: the B requests whose next token is chosen.
            masks: what the rows with a grammar may choose; None if there are none.
        """
        finite = torch.isfinite(logits.amax(dim=-1)).tolist()
        if masks is not None:
            allowed = torch.from_numpy(masks.allowed).to(logits.device)
            logits[masks.rows] = logits[masks.rows].masked_fill_(~allowed, NEVER)
        for row, request in zip(logits, requests, strict=True):
            _apply_penalties(row, request)
        random_rows = [
            index for index, request in enumerate(requests) if request.params.temperature >= MIN_TEMPERATURE
        ]
        if random_rows:
            chosen = [requests[index] for index in random_rows]
            picked = logits if len(random_rows) == len(requests) else logits[random_rows]
            logits[random_rows] = self._perturb(picked, chosen)
        token_ids = logits.argmax(dim=-1).tolist()
        return [token if ok else None for token, ok in zip(token_ids, finite, strict=True)]

    def _perturb(self, logits: Tensor, requests: Sequence[Request]) -> Tensor:
        """Scaled, truncated logits plus Gumbel noise: their argmax is the random choice."""
        temperatures = torch.tensor([r.params.temperature for r in requests], device=logits.device)
        scaled = logits / temperatures[:, None]
        for row, request in zip(scaled, requests, strict=True):
            _truncate(row, request)
        return scaled + self._gumbel(requests)

    def _gumbel(self, requests: Sequence[Request]) -> Tensor:
        """[B, vocab_size] standard Gumbel noise, a function of each request's seed and position."""
        low_keys, high_keys = zip(*(_row_key(request) for request in requests), strict=True)
        device = self.token_noise.device
        low = torch.tensor(low_keys, dtype=torch.int32, device=device)[:, None]
        high = torch.tensor(high_keys, dtype=torch.int32, device=device)[:, None]
        bits = _mix(_mix(self.token_noise[None, :] ^ low) + high)
        # 23 bits and a half: never 0, never 1, and exact in float32.
        uniform = ((bits >> 9) & 0x7FFFFF).to(torch.float32).add_(0.5).mul_(2.0**-23)
        return uniform.log_().neg_().log_().neg_()


def _row_key(request: Request) -> tuple[int, int]:
    """Two signed 32-bit keys of (seed, choice, position), by splitmix64."""
    key = _splitmix64(request.params.seed & MASK_64)
    key = _splitmix64(key ^ request.params.choice)
    key = _splitmix64(key ^ request.num_tokens)
    return _signed32(key & MASK_32), _signed32(key >> 32)


def _splitmix64(value: int) -> int:
    """Steele, Lea and Flood's 64-bit mixing function (OOPSLA 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & MASK_64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK_64
    return value ^ (value >> 31)


def _signed32(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value


def _as_int32(values: Tensor) -> Tensor:
    """Low 32 bits of int64 values, as int32."""
    low = values & MASK_32
    return torch.where(low >= 1 << 31, low - (1 << 32), low).to(torch.int32)


def _mix(bits: Tensor) -> Tensor:
    """MurmurHash3's 32-bit finalizer on int32; torch shifts signed, so the sign bits are masked off."""
    bits = bits ^ ((bits >> 16) & 0xFFFF)
    bits = bits * _signed32(0x85EBCA6B)
    bits = bits ^ ((bits >> 13) & 0x7FFFF)
    bits = bits * _signed32(0xC2B2AE35)
    return bits ^ ((bits >> 16) & 0xFFFF)


def _apply_penalties(row: Tensor, request: Request) -> None:
    """Bias, penalties and bans, in place on one row [vocab_size]."""
    params = request.params
    for token_id, bias in params.logit_bias:
        row[token_id] += bias
    if params.repetition_penalty != 1.0:
        seen = torch.tensor(sorted(set(request.token_ids)), device=row.device)
        scores = row[seen]
        penalty = params.repetition_penalty
        row[seen] = torch.where(scores < 0, scores * penalty, scores / penalty)
    if (params.presence_penalty or params.frequency_penalty) and request.num_output_tokens:
        output = torch.tensor(request.output_ids(), device=row.device)
        seen, counts = torch.unique(output, return_counts=True)
        row[seen] -= params.presence_penalty + params.frequency_penalty * counts
    # A grammar decides itself where an end is possible, and there it may be the only choice.
    if request.num_output_tokens < params.min_tokens and request.end_token_ids and request.matcher is None:
        row[sorted(request.end_token_ids)] = NEVER


def _truncate(row: Tensor, request: Request) -> None:
    """Top-k, top-p and min-p, in place on one row of scaled logits [vocab_size]."""
    params = request.params
    if 0 < params.top_k < row.shape[0]:
        row[row < row.topk(params.top_k).values[-1]] = NEVER
    if params.top_p < 1.0:
        row[row < _nucleus_threshold(row, params.top_p)] = NEVER
    if params.min_p > 0.0:
        row[row < row.max() + torch.log(torch.tensor(params.min_p, device=row.device))] = NEVER


def _nucleus_threshold(row: Tensor, top_p: float) -> Tensor:
    """Logit of the last token of the smallest set whose probability reaches top_p."""
    log_total = row.logsumexp(dim=-1)
    for num_candidates in (min(NUCLEUS_CANDIDATES, row.shape[0]), row.shape[0]):
        candidates = row.topk(num_candidates).values
        before = (candidates - log_total).exp().cumsum(dim=-1)
        num_kept = int((before < top_p).sum()) + 1
        if num_kept <= num_candidates:
            break
    return candidates[min(num_kept, num_candidates) - 1]
