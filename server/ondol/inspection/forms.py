"""The forms that a model can be served in, drawn from its outline: full precision, quantized, as published.

Knows nothing about memory. The invariant: a form's parameters are those of a real load in that form, on
the meta device.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ondol.inspection.outline import ModelOutline
from ondol.modeling.architecture import read_config
from ondol.modeling.loading import Blueprint, draw_model, draw_original
from ondol.modeling.quantization.on_load import OnLoad
from ondol.modeling.quantization.selection import read_quantization

CPU = torch.device("cpu")
FLOATS = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
# From most to least precise.
ORIGINAL_FORMS = ("fp32", "fp16", "int8", "nf4", "nf4-double")
PUBLISHED = "published"


@dataclass(frozen=True, slots=True)
class Form:
    """One way to hold a model's weights.

    Attributes:
        key: "fp32", "fp16" (16 bits, whichever kind), "int8", "nf4", "nf4-double" or "published".
        method: "none", "int8", "nf4" or the published quantization's name.
        blueprint: the model as it would be built; `blueprint.dtype` is of what is not quantized.
    """

    key: str
    method: str
    blueprint: Blueprint

    @property
    def dtype(self) -> str:
        """Dtype of hidden states and of what is not quantized."""
        return str(self.blueprint.dtype).removeprefix("torch.")


def draw_forms(outline: ModelOutline, dtype: str) -> Iterator[Form]:
    """Every form, largest first, the published one last.

    Args:
        outline: the model.
        dtype: of what int8, nf4 and a published quantization leave as it is: "float32", "bfloat16" or
            "float16".

    Raises:
        ModelRefused: the model cannot be served.
    """
    yield from draw_original_forms(outline, dtype)
    yield draw_published(outline, dtype)


def draw_original_forms(outline: ModelOutline, dtype: str) -> Iterator[Form]:
    """`ORIGINAL_FORMS`, of a quantized checkpoint those of the model that it was made from; as above."""
    asked: tuple[tuple[str, OnLoad | None], ...] = (
        ("float32", None),
        (half_dtype(outline), None),
        (dtype, OnLoad("int8")),
        (dtype, OnLoad("nf4")),
        (dtype, OnLoad("nf4", use_double_quant=True)),
    )
    for key, (form_dtype, on_load) in zip(ORIGINAL_FORMS, asked, strict=True):
        blueprint = draw_original(outline.folder, CPU, form_dtype, on_load)
        yield Form(key, "none" if on_load is None else on_load.method, blueprint)


def draw_published(outline: ModelOutline, dtype: str) -> Form:
    """The checkpoint as its files hold it.

    Raises:
        ModelRefused: it cannot be served, or is quantized and its headers are not here.
    """
    quantization = read_quantization(outline.folder)
    if quantization is None:
        stored = stored_dtype(outline)
        return Form(PUBLISHED, "none", draw_original(outline.folder, CPU, stored))
    checkpoint = outline.headers(quantization.method)
    blueprint = draw_model(outline.folder, CPU, dtype, checkpoint=checkpoint)
    return Form(PUBLISHED, quantization.method, blueprint)


def stored_dtype(outline: ModelOutline) -> str:
    """What config.json says that full-precision weights are stored in; float32 where it says nothing."""
    return FLOATS.get(read_config(outline.folder).dtype, "float32")


def half_dtype(outline: ModelOutline) -> str:
    """The kind of 16 bits that the model was published in, bfloat16 where in neither."""
    stored = stored_dtype(outline)
    return stored if stored != "float32" else "bfloat16"
