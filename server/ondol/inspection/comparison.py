"""Two models side by side, in numbers.

Knows nothing about terminals. The invariant: both columns are counted in the same way, over the models in
full precision, so that a quantized checkpoint is compared as what it was made from.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ondol.inspection.facts import ModelFacts, read_facts
from ondol.inspection.forms import ORIGINAL_FORMS, draw_original_forms
from ondol.inspection.outline import ModelOutline
from ondol.modeling.footprint import measure_footprint

# Models whose sizes differ more than this are no alternatives to each other.
LARGEST_RATIO = 2.0


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """One column.

    Attributes:
        form_bytes: of the weights in each of `ORIGINAL_FORMS`; int8 and nf4 leave their rest in 16 bits.
    """

    facts: ModelFacts
    form_bytes: dict[str, int]

    @property
    def kv_bytes_per_token(self) -> int:
        """In 16 bits."""
        return self.facts.kv_bytes_per_token(torch.float16)

    def values(self) -> Iterator[tuple[str, Any]]:
        """(row's key, value) from top to bottom; the same keys for every model."""
        facts, experts = self.facts, self.facts.experts
        yield "architecture", facts.architecture
        yield "num_parameters", facts.num_parameters
        yield "num_active_parameters", facts.num_active_parameters
        yield "num_layers", facts.num_layers
        yield "hidden_size", facts.hidden_size
        yield "intermediate_size", facts.intermediate_size
        yield "num_heads", facts.num_heads
        yield "num_kv_heads", facts.num_kv_heads
        yield "head_dim", facts.head_dim
        yield "vocab_size", facts.vocab_size
        yield "context_length", facts.context_length
        yield "sliding_window", facts.sliding_window
        yield "rope", str(facts.rope)
        yield "norm", f"{facts.norm}, eps {facts.norm_eps:g}"
        yield "activation", facts.activation
        yield "is_tied", facts.is_tied
        yield "num_experts", experts and experts.num_experts
        yield "num_experts_per_token", experts and experts.num_experts_per_token
        yield "expert_intermediate_size", experts and experts.intermediate_size
        yield "quantization", facts.quantization
        yield "stored_dtype", facts.stored_dtype
        for form in ORIGINAL_FORMS:
            yield f"{form}_bytes", self.form_bytes[form]
        yield "kv_bytes_per_token", self.kv_bytes_per_token
        yield "licence", facts.licence or None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two columns."""

    first: ComparedModel
    second: ComparedModel

    @property
    def size_ratio(self) -> float:
        """How many times larger the larger one is, by parameters."""
        sizes = sorted(model.facts.num_parameters for model in (self.first, self.second))
        return sizes[1] / sizes[0]

    @property
    def is_uneven(self) -> bool:
        """The two differ too much in size to stand in for each other."""
        return self.size_ratio > LARGEST_RATIO

    def to_json(self) -> dict[str, Any]:
        """Ready for json.dumps: {"models": [row key -> value], "size_ratio", "is_uneven"}; null: has none."""
        columns = [{"model": model.facts.name, **dict(model.values())} for model in (self.first, self.second)]
        return {"models": columns, "size_ratio": self.size_ratio, "is_uneven": self.is_uneven}


def compare_models(first: ModelOutline, second: ModelOutline) -> Comparison:
    """Raises ModelRefused for a model that cannot be served."""
    return Comparison(_column(first), _column(second))


def _column(outline: ModelOutline) -> ComparedModel:
    form_bytes = {
        form.key: measure_footprint(form.blueprint).weights_bytes
        for form in draw_original_forms(outline, "float16")
    }
    return ComparedModel(read_facts(outline), form_bytes)
