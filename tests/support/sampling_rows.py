"""How a batch's tokens are sampled, row by row."""

from collections.abc import Mapping, Sequence

import torch

from ondol.kernels.sampling import SamplingRows


def sampling_rows(rows: Sequence[Mapping[str, float]], device: torch.device | None = None) -> SamplingRows:
    """Rows of temperature, top_k, top_p, min_p, seed, choice and position; 1, 0, 1 and zeros if absent."""

    def column(name: str, default: float, dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor([row.get(name, default) for row in rows], dtype=dtype, device=device)

    return SamplingRows(
        temperatures=column("temperature", 1.0, torch.float32),
        top_ks=column("top_k", 0, torch.int32),
        top_ps=column("top_p", 1.0, torch.float32),
        min_ps=column("min_p", 0.0, torch.float32),
        seeds=column("seed", 0, torch.int64),
        choices=column("choice", 0, torch.int64),
        positions=column("position", 0, torch.int64),
    )
