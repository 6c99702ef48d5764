"""Samples a token for every row of logits in two launches, with the reference's noise.

The same as `ondol.kernels.sampling.sample_tokens`. The first launch looks at chunks: their largest logit,
and the choice of rows that keep every token. The second has one program per row; for rows that truncate it
gathers the few tokens that can be left at all and searches the thresholds among those: nothing is sorted.
Knows nothing about requests. Invariant: what is computed for a row, and in which order, depends on that row
and the size of the vocabulary alone.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ondol.kernels import sampling as reference
from ondol.kernels.sampling import SamplingRows
from ondol.kernels.triton.gumbel import gumbel_noise, row_key

# Logits that one program of the first launch looks at.
CHUNK = 1024
# Logits of a row that its program in the second launch works on together.
BLOCK = 4096
ROW_WARPS = 16

MIN_TEMPERATURE = tl.constexpr(reference.MIN_TEMPERATURE)
# Sums and logarithms are rounded: so much more than arithmetic says is looked at.
NUCLEUS_SLACK = tl.constexpr(1.0)
MIN_P_SLACK = tl.constexpr(1e-3)
# The lowest float32 that is a possible token's.
LOWEST = tl.constexpr(torch.finfo(torch.float32).min)
# Loads of a row that are under way at once: one program alone waits for each of them.
GATHER_STAGES = tl.constexpr(4)

# These begin anywhere, depending on the number of rows; that must not make Triton compile anew.
UNALIGNED = [
    *("temperatures", "top_ks", "top_ps", "min_ps", "seeds", "choices", "positions"),
    *("maxima", "sums", "best_scores", "best_ids"),
]


def sample_tokens(logits: Tensor, rows: SamplingRows) -> tuple[Tensor, Tensor]:
    """As `sampling.sample_tokens`; each row of `logits`, and each parameter, is contiguous."""
    num_rows, vocab_size = logits.shape
    assert logits.stride(1) == 1, "a row's logits lie side by side"
    parameters = (
        *(rows.temperatures, rows.top_ks, rows.top_ps, rows.min_ps),
        *(rows.seeds, rows.choices, rows.positions),
    )
    assert all(parameter.is_contiguous() for parameter in parameters), "one parameter after the other"
    num_chunks = triton.cdiv(vocab_size, CHUNK)
    device = logits.device
    maxima, sums, best_scores = torch.empty((3, num_rows, num_chunks), dtype=torch.float32, device=device)
    best_ids = torch.empty((num_rows, num_chunks), dtype=torch.int32, device=device)
    kept_scores = torch.empty((num_rows, vocab_size), dtype=torch.float32, device=device)
    kept_ids = torch.empty((num_rows, vocab_size), dtype=torch.int32, device=device)
    token_ids = torch.empty(num_rows, dtype=torch.int64, device=device)
    is_finite = torch.empty(num_rows, dtype=torch.bool, device=device)
    if num_rows:
        partials = (maxima, sums, best_scores, best_ids)
        _scan_kernel[(num_rows, num_chunks)](
            logits, logits.stride(0), *parameters, *partials, VOCAB=vocab_size, CHUNK=CHUNK, num_warps=4
        )
        _choose_kernel[(num_rows,)](
            logits, logits.stride(0), *parameters, *partials, kept_scores, kept_ids, token_ids, is_finite,
            VOCAB=vocab_size, CHUNK=CHUNK, MAX_CHUNKS=triton.next_power_of_2(num_chunks), BLOCK=BLOCK,
            num_warps=ROW_WARPS,
        )  # fmt: skip
    return token_ids, is_finite


@triton.jit(do_not_specialize_on_alignment=UNALIGNED)
def _scan_kernel(
    logits, stride, temperatures, top_ks, top_ps, min_ps, seeds, choices, positions,
    maxima, sums, best_scores, best_ids, VOCAB: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """One program per row and chunk; a chunk with NaN or infinity has an infinite maximum."""
    row = tl.program_id(0).to(tl.int64)
    ids = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    values = tl.load(logits + row * stride + ids, mask=ids < VOCAB, other=float("-inf"))
    temperature = tl.load(temperatures + row)
    is_random = temperature >= MIN_TEMPERATURE
    scores = tl.div_rn(values, tl.where(is_random, temperature, 1.0))
    largest = tl.max(scores, axis=0)
    is_bad = tl.max(((values != values) | (values == float("inf"))).to(tl.int32), axis=0) > 0
    place = row * tl.num_programs(1) + tl.program_id(1)
    tl.store(maxima + place, tl.where(is_bad, float("inf"), largest))
    if is_random:
        top_k, top_p, min_p = tl.load(top_ks + row), tl.load(top_ps + row), tl.load(min_ps + row)
        if _truncates(top_k, top_p, min_p, VOCAB):
            # Infinity is not taken from itself: a chunk may hold no possible token.
            base = tl.where(is_bad | (largest == float("-inf")), 0.0, largest)
            tl.store(sums + place, tl.sum(tl.exp(scores - base), axis=0))
        else:
            key = row_key(tl.load(seeds + row), tl.load(choices + row), tl.load(positions + row))
            scores += gumbel_noise(key, ids)
    best, index = tl.max(scores, axis=0, return_indices=True)
    tl.store(best_scores + place, best)
    tl.store(best_ids + place, tl.program_id(1) * CHUNK + index)


@triton.jit(do_not_specialize_on_alignment=UNALIGNED)
def _choose_kernel(
    logits, stride, temperatures, top_ks, top_ps, min_ps, seeds, choices, positions,
    maxima, sums, best_scores, best_ids, kept_scores, kept_ids, token_ids, is_finite,
    VOCAB: tl.constexpr, CHUNK: tl.constexpr, MAX_CHUNKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program per row."""
    NUM_CHUNKS: tl.constexpr = (VOCAB + CHUNK - 1) // CHUNK
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.arange(0, MAX_CHUNKS)
    is_chunk = chunk < NUM_CHUNKS
    own = row * NUM_CHUNKS + chunk
    chunk_maxima = tl.load(maxima + own, mask=is_chunk, other=float("-inf"))
    largest = tl.max(chunk_maxima, axis=0)
    is_usable = (largest > float("-inf")) & (largest < float("inf"))
    scores = tl.load(best_scores + own, mask=is_chunk, other=float("-inf"))
    _, index = tl.max(scores, axis=0, return_indices=True)
    token_id = tl.load(best_ids + row * NUM_CHUNKS + index)
    temperature = tl.load(temperatures + row)
    top_k, top_p, min_p = tl.load(top_ks + row), tl.load(top_ps + row), tl.load(min_ps + row)
    if is_usable & (temperature >= MIN_TEMPERATURE) & _truncates(top_k, top_p, min_p, VOCAB):
        parts = tl.load(sums + own, mask=is_chunk, other=0.0) * tl.exp(chunk_maxima - largest)
        total = tl.sum(parts, axis=0)
        has_k = (top_k > 0) & (top_k < VOCAB)
        bound = _lower_bound(chunk_maxima, largest, total, tl.where(has_k, top_k, 0), top_p, min_p, VOCAB)
        kept_scores += row * VOCAB
        kept_ids += row * VOCAB
        source = logits + row * stride
        num_kept = _gather(source, temperature, bound, kept_scores, kept_ids, VOCAB, BLOCK)
        # The program's other threads wrote what is read from here on.
        tl.debug_barrier()
        lowest = float("-inf")
        if has_k & (num_kept > top_k):
            lowest = _top_k_threshold(kept_scores, num_kept, bound, largest, top_k, BLOCK)
        if top_p < 1.0:
            if has_k:
                total = _mass(kept_scores, num_kept, lowest, largest, BLOCK)
            start = tl.maximum(lowest, bound)
            lowest = _nucleus_threshold(kept_scores, num_kept, start, largest, top_p * total, BLOCK)
        if min_p > 0.0:
            lowest = tl.maximum(lowest, largest + tl.log(min_p))
        key = row_key(tl.load(seeds + row), tl.load(choices + row), tl.load(positions + row))
        token_id = _best_token(kept_scores, kept_ids, num_kept, lowest, key, BLOCK)
    tl.store(token_ids + row, tl.where(is_usable, token_id, 0).to(tl.int64))
    tl.store(is_finite + row, is_usable)


@triton.jit
def _truncates(top_k, top_p, min_p, VOCAB: tl.constexpr):
    return ((top_k > 0) & (top_k < VOCAB)) | (top_p < 1.0) | (min_p > 0.0)


@triton.jit
def _lower_bound(chunk_maxima, largest, total, top_k, top_p, min_p, VOCAB: tl.constexpr):
    """A score that every token reaches which truncation can leave; `top_k` is 0 if it is not asked for.

    `total` is the sum of the row's exponentials, relative to its likeliest token's.
    """
    bound = tl.full((), LOWEST, tl.float32)
    if top_k > 0:
        # k chunks hold a token each that reaches the k-th largest maximum.
        maxima = _monotone(chunk_maxima)
        low, high = _monotone(bound), _monotone(largest) + 1
        while low + 1 < high:
            middle = _between(low, high)
            is_enough = tl.sum((maxima >= middle).to(tl.int32), axis=0) >= top_k
            low = tl.where(is_enough, middle, low)
            high = tl.where(is_enough, high, middle)
        bound = _from_monotone(low)
    if top_p < 1.0:
        # All tokens under the bound together have less than what a nucleus may lack; what top-k leaves of the
        # total is the likeliest token at least.
        least_total = tl.where(top_k > 0, 1.0, total)
        bound = tl.maximum(bound, largest + tl.log((1.0 - top_p) * least_total / VOCAB) - NUCLEUS_SLACK)
    if min_p > 0.0:
        bound = tl.maximum(bound, largest + tl.log(min_p) - MIN_P_SLACK)
    return bound


@triton.jit
def _gather(source, temperature, bound, kept_scores, kept_ids, VOCAB: tl.constexpr, BLOCK: tl.constexpr):
    """Write scores and ids of tokens that reach the bound, in order of ids; returns how many there are."""
    num_kept = 0
    for start in tl.range(0, VOCAB, BLOCK, num_stages=GATHER_STAGES):
        ids = start + tl.arange(0, BLOCK)
        values = tl.load(source + ids, mask=ids < VOCAB, other=float("-inf"))
        scores = tl.div_rn(values, temperature)
        is_kept = scores >= bound
        place = num_kept + tl.cumsum(is_kept.to(tl.int32), axis=0) - 1
        tl.store(kept_scores + place, scores, mask=is_kept)
        tl.store(kept_ids + place, ids, mask=is_kept)
        num_kept += tl.sum(is_kept.to(tl.int32), axis=0)
    return num_kept


@triton.jit
def _top_k_threshold(kept_scores, num_kept, bound, largest, top_k, BLOCK: tl.constexpr):
    """A score that the k-th largest reaches, and none below it."""
    low, high = _monotone(bound), _monotone(largest) + 1
    while low + 1 < high:
        middle = _between(low, high)
        threshold = _from_monotone(middle)
        counts = tl.zeros((BLOCK,), tl.int32)
        for start in range(0, num_kept, BLOCK):
            counts += (_kept(kept_scores, start, num_kept, BLOCK) >= threshold).to(tl.int32)
        count = tl.sum(counts, axis=0)
        low = tl.where(count >= top_k, middle, low)
        # With exactly k above it there is nothing left to find out.
        high = tl.where(count > top_k, high, tl.where(count == top_k, middle + 1, middle))
    return _from_monotone(low)


@triton.jit
def _nucleus_threshold(kept_scores, num_kept, lowest, largest, target, BLOCK: tl.constexpr):
    """The largest score for which the tokens that reach it have the target's mass."""
    low, high = _monotone(lowest), _monotone(largest) + 1
    while low + 1 < high:
        middle = _between(low, high)
        is_enough = _mass(kept_scores, num_kept, _from_monotone(middle), largest, BLOCK) >= target
        low = tl.where(is_enough, middle, low)
        high = tl.where(is_enough, high, middle)
    return _from_monotone(low)


@triton.jit
def _mass(kept_scores, num_kept, lowest, largest, BLOCK: tl.constexpr):
    """Sum of the exponentials, relative to the largest, of tokens that reach `lowest`."""
    masses = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, num_kept, BLOCK):
        scores = _kept(kept_scores, start, num_kept, BLOCK)
        masses += tl.where(scores >= lowest, tl.exp(scores - largest), 0.0)
    return tl.sum(masses, axis=0)


@triton.jit
def _best_token(kept_scores, kept_ids, num_kept, lowest, key, BLOCK: tl.constexpr):
    """The token with the largest score and noise among those that reach `lowest`; of equals the first."""
    best, token_id = float("-inf"), 0
    for start in range(0, num_kept, BLOCK):
        place = start + tl.arange(0, BLOCK)
        ids = tl.load(kept_ids + place, mask=place < num_kept, other=0)
        scores = _kept(kept_scores, start, num_kept, BLOCK)
        scores = tl.where(scores >= lowest, scores + gumbel_noise(key, ids), float("-inf"))
        found, index = tl.max(scores, axis=0, return_indices=True)
        found_id = tl.load(kept_ids + start + index)
        token_id = tl.where(found > best, found_id, token_id)
        best = tl.maximum(best, found)
    return token_id


@triton.jit
def _kept(kept_scores, start, num_kept, BLOCK: tl.constexpr):
    place = start + tl.arange(0, BLOCK)
    return tl.load(kept_scores + place, mask=place < num_kept, other=float("-inf"))


@triton.jit
def _monotone(score):
    """Integers in the order of floats; the same bits turn back by the same step."""
    bits = score.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _from_monotone(key):
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def _between(low, high):
    """Their mean, rounded down, whatever their signs."""
    return (low & high) + ((low ^ high) >> 1)
