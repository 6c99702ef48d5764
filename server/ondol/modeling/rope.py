"""Rotary position tables.

The frequencies come from transformers' own functions, so that every static scaling (llama3, linear,
yarn) is computed as the reference computes it.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ondol.modeling.architecture import rope_type


class RotaryTable:
    """Cosines and sines of every position up to the context length.

    Attributes:
        cos, sin: [max_model_len, head_dim], both halves equal, in the model's dtype.
    """

    def __init__(self, config: Any, head_dim: int) -> None:
        self._inverse_frequencies, self._scaling = _frequencies(config, head_dim)
        self.cos = torch.empty(0)
        self.sin = torch.empty(0)

    def build(self, max_model_len: int, dtype: torch.dtype, device: torch.device) -> None:
        """Fill the table: angles in float32, then cast, as the reference does."""
        positions = torch.arange(max_model_len, dtype=torch.float32)
        angles = positions[:, None] * self._inverse_frequencies[None, :]
        angles = torch.cat((angles, angles), dim=-1)
        self.cos = (angles.cos() * self._scaling).to(device=device, dtype=dtype)
        self.sin = (angles.sin() * self._scaling).to(device=device, dtype=dtype)

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin, [T, 1, head_dim] each, for positions [T]."""
        return self.cos[positions][:, None, :], self.sin[positions][:, None, :]


def _frequencies(config: Any, head_dim: int) -> tuple[Tensor, float]:
    """Inverse frequencies [head_dim / 2] in float32 and the factor on cos and sin."""
    kind = rope_type(config)
    if kind == "default":
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
        return 1.0 / (config.rope_parameters["rope_theta"] ** exponents), 1.0
    inverse_frequencies, scaling = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    return inverse_frequencies.float(), float(scaling)
