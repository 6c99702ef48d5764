"""How a loaded model's weights are stored, as the engine tells the API process.

What `modeling/report.py` counted, in a form that crosses the process boundary. Knows nothing about tensors.
Invariant: plain data.
"""

import msgspec


class StoredWeights(msgspec.Struct, frozen=True, kw_only=True):
    """Weights that are stored in one way.

    Attributes:
        kind: "float32", "bfloat16", "float16", "int8", "int4", "nf4", "fp4" or "fp8_e4m3".
        container: dtype of the tensors that hold the codes.
        num_modules: modules, as the checkpoint counts them: a fused stack counts its parts.
        num_weights: weights that the codes stand for.
        num_bytes: memory, scales and tables included.
        bits_per_weight: measured over codes, scales and zeros.
    """

    kind: str
    container: str
    num_modules: int
    num_weights: int
    num_bytes: int
    bits_per_weight: float


class WeightsReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a loaded model's weights are stored.

    Attributes:
        stored: one entry for each kind and container, largest first.
        unquantized: modules that hold plain floating-point weights; `*` stands for any index.
    """

    stored: tuple[StoredWeights, ...] = ()
    unquantized: tuple[str, ...] = ()
