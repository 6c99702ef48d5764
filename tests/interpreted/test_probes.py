"""The probes that decide whether a GPU's kernels can be used, by the interpreter."""

import torch

from ondol.kernels.triton.backend import why_unusable


def test_tritons_kernels_answer_every_probe():
    assert why_unusable(torch.device("cpu")) is None
