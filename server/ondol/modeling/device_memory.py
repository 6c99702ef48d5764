"""Memory for a model's weights on the device that computes.

Knows parameters, nothing about what they mean. Invariant: what has memory already keeps it.
"""

import torch
from torch import nn


def allocate(model: nn.Module, device: torch.device) -> None:
    """Move what is still on the meta device to uninitialized memory of `device`."""
    for module in model.modules():
        if all(parameter.is_meta for parameter in module.parameters(recurse=False)):
            module.to_empty(device=device, recurse=False)
