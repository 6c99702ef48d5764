"""Chooses one token for each row of logits: the torch reference.

The random choice is a Gumbel-max whose noise is a hash of (seed, choice, position, token id), computed where
the logits are. Knows nothing about requests. Invariant: a row's choice is a function of that row alone,
whatever else is in the batch, and a device is never waited for.

Order, as in transformers: temperature, top-k, top-p, min-p.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

NEVER = float("-inf")
# Below this a temperature is greedy: scaling by it would overflow float32.
MIN_TEMPERATURE = 1e-5
# Candidates that a nucleus is first looked for in, on a CPU; a wider one is found by a full sort.
NUCLEUS_CANDIDATES = 1024

# An odd multiplier spreads neighbouring token ids over all 32 bits before the first mixing.
TOKEN_MULTIPLIER = 0x9E3779B1
# splitmix64: Steele, Lea and Flood, OOPSLA 2014.
STEP_64 = 0x9E3779B97F4A7C15
FIRST_64 = 0xBF58476D1CE4E5B9
SECOND_64 = 0x94D049BB133111EB
# MurmurHash3's 32-bit finalizer.
FIRST_32 = 0x85EBCA6B
SECOND_32 = 0xC2B2AE35


@dataclass(frozen=True, slots=True)
class SamplingRows:
    """How each row's token is chosen; tensors [B] on the logits' device.

    Attributes:
        temperatures: float32; 0 (or below 1e-5) is greedy.
        top_ks: int32; 0 keeps all.
        top_ps: float32; 1 keeps all.
        min_ps: float32; 0 keeps all.
        seeds: int64, the bits of an unsigned seed.
        choices: int64, which of a request's choices the row belongs to.
        positions: int64, how many tokens are known before the new one; may be advanced on the device.
    """

    temperatures: Tensor
    top_ks: Tensor
    top_ps: Tensor
    min_ps: Tensor
    seeds: Tensor
    choices: Tensor
    positions: Tensor

    def keys(self) -> Tensor:
        """[B] int64, the bits of splitmix64 over (seed, choice, position): what keys a row's noise."""
        key = _splitmix64(self.seeds)
        key = _splitmix64(key ^ self.choices)
        return _splitmix64(key ^ self.positions)


def sample_tokens(logits: Tensor, rows: SamplingRows) -> tuple[Tensor, Tensor]:
    """One token for each row.

    Args:
        logits: [B, vocab_size] float32; not changed. An impossible token has minus infinity.
        rows: how each is chosen.

    Returns:
        token_ids [B] int64, and is_finite [B] bool: False, and token 0, where a row holds NaN or plus
        infinity, or nothing but minus infinity.
    """
    is_finite = torch.isfinite(logits.amax(dim=-1))
    token_ids = logits.argmax(dim=-1)
    is_random = rows.temperatures >= MIN_TEMPERATURE
    chosen = _asking(is_random)
    if len(chosen):
        # Rows that are here without asking for it divide by anything but zero, and keep their greedy token.
        temperatures = rows.temperatures[chosen].clamp_(min=MIN_TEMPERATURE)
        scores = logits[chosen].div_(temperatures[:, None])
        truncate(scores, rows.top_ks[chosen], rows.top_ps[chosen], rows.min_ps[chosen])
        scores += gumbel_noise(rows.keys()[chosen], logits.shape[1])
        token_ids[chosen] = torch.where(is_random[chosen], scores.argmax(dim=-1), token_ids[chosen])
    return token_ids.masked_fill_(~is_finite, 0), is_finite


def truncate(scores: Tensor, top_ks: Tensor, top_ps: Tensor, min_ps: Tensor) -> None:
    """Top-k, then top-p of what is left, then min-p, in place; tied tokens stay or go together.

    Args:
        scores: [B, vocab_size] float32, scaled by the temperature; what is dropped becomes minus infinity.
        top_ks, top_ps, min_ps: as in `SamplingRows`.
    """
    vocab_size = scores.shape[1]
    is_limited = (top_ks > 0) & (top_ks < vocab_size)
    chosen = _asking(is_limited)
    if len(chosen):
        _drop_below(scores, chosen, _top_k_thresholds(scores[chosen], top_ks[chosen]), is_limited)
    is_limited = top_ps < 1.0
    chosen = _asking(is_limited)
    if len(chosen):
        _drop_below(scores, chosen, _nucleus_thresholds(scores[chosen], top_ps[chosen]), is_limited)
    is_limited = min_ps > 0.0
    chosen = _asking(is_limited)
    if len(chosen):
        largest = scores[chosen].amax(dim=-1)
        _drop_below(scores, chosen, largest + torch.log(min_ps[chosen]), is_limited)


def gumbel_noise(keys: Tensor, vocab_size: int) -> Tensor:
    """[B, vocab_size] standard Gumbel noise of rows' keys [B] int64 and token ids."""
    ids = torch.arange(vocab_size, dtype=torch.int32, device=keys.device)
    token_noise = _mix(ids.mul_(_signed(TOKEN_MULTIPLIER, 32)))
    halves = keys.view(torch.int32).view(-1, 2)
    bits = _mix(token_noise[None, :] ^ halves[:, :1]).add_(halves[:, 1:])
    # 23 bits and a half: never 0, never 1, and exact in float32.
    uniform = ((_mix(bits) >> 9) & 0x7FFFFF).to(torch.float32).add_(0.5).mul_(2.0**-23)
    return uniform.log_().neg_().log_().neg_()


def _asking(is_asked: Tensor) -> Tensor:
    """Indices of the rows that ask; of all rows on a device that would have to be waited for."""
    if is_asked.device.type == "cpu":
        return is_asked.nonzero().squeeze(1)
    return torch.arange(len(is_asked), device=is_asked.device)


def _drop_below(scores: Tensor, chosen: Tensor, thresholds: Tensor, is_limited: Tensor) -> None:
    thresholds = thresholds.masked_fill(~is_limited[chosen], NEVER)[:, None]
    rows = scores[chosen]
    scores[chosen] = rows.masked_fill_(rows < thresholds, NEVER)


def _top_k_thresholds(scores: Tensor, top_ks: Tensor) -> Tensor:
    """[B] the k-th largest score of each row."""
    vocab_size = scores.shape[1]
    largest_k = int(top_ks.max()) if scores.device.type == "cpu" else vocab_size
    places = top_ks.to(torch.int64).clamp_(1, vocab_size) - 1
    return scores.topk(largest_k).values.gather(1, places[:, None]).squeeze(1)


def _nucleus_thresholds(scores: Tensor, top_ps: Tensor) -> Tensor:
    """[B] score of the last token of the smallest set whose probability reaches top_p."""
    vocab_size = scores.shape[1]
    log_totals = scores.logsumexp(dim=-1, keepdim=True)
    is_cpu = scores.device.type == "cpu"
    num_candidates = min(NUCLEUS_CANDIDATES, vocab_size) if is_cpu else vocab_size
    while True:
        candidates = scores.topk(num_candidates).values
        reached = (candidates - log_totals).exp_().cumsum(dim=-1)
        num_kept = (reached < top_ps[:, None]).sum(dim=-1) + 1
        if num_candidates == vocab_size or bool((num_kept <= num_candidates).all()):
            break
        num_candidates = vocab_size
    # Sums that rounding keeps below top_p keep every token.
    return candidates.gather(1, num_kept.clamp_(max=num_candidates)[:, None] - 1).squeeze(1)


def _splitmix64(value: Tensor) -> Tensor:
    """On int64, which wraps; torch shifts signed, so the sign bits are masked off."""
    value = value + _signed(STEP_64, 64)
    value = (value ^ (value >> 30 & (1 << 34) - 1)) * _signed(FIRST_64, 64)
    value = (value ^ (value >> 27 & (1 << 37) - 1)) * _signed(SECOND_64, 64)
    return value ^ (value >> 31 & (1 << 33) - 1)


def _mix(bits: Tensor) -> Tensor:
    """MurmurHash3's finalizer on int32, likewise."""
    bits = bits ^ ((bits >> 16) & 0xFFFF)
    bits *= _signed(FIRST_32, 32)
    bits ^= (bits >> 13) & 0x7FFFF
    bits *= _signed(SECOND_32, 32)
    bits ^= (bits >> 16) & 0xFFFF
    return bits


def _signed(value: int, num_bits: int) -> int:
    """The signed integer with the same bits."""
    return value - (1 << num_bits) if value >= 1 << (num_bits - 1) else value
