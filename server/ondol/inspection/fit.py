"""Whether a model fits a device, in which form, with how long a context and how many requests.

Arithmetic over shapes. Knows nothing about terminals. The invariant: weights are the bytes that a load in
that form takes, and what is said to fit, fits together: weights, KV cache and workspace.

A report's JSON (`to_json`) is an interface; keys are added, never changed. All sizes are in bytes:

    {"model", "origin", "licence", "quantization": as published, or null, "context", "concurrency",
     "context_length": what the model was made for, "num_parameters", "num_active_parameters",
     "device": {"kind", "name", "total_bytes", "usable_bytes", "host_bytes": host memory for layers,
                "kv_limit_bytes": KV cache that an engine takes at most without --kv-cache-memory, or null},
     "forms": [{"form": "fp32"|"fp16"|"int8"|"nf4"|"nf4-double"|"published", "method", "dtype", "kv_dtype",
                "weights_bytes", "quantized_bytes", "bits_per_parameter", "kv_bytes_per_token",
                "kv_cache_bytes", "workspace_bytes", "total_bytes": on the device, "fits",
                "fits_with_fp8_kv": keys and values in 8 bits, "max_context", "max_concurrency",
                "host_bytes": of the weights in host memory with the offload that was asked for,
                "offload_needed_bytes": host memory for layers with which it would fit, or null where it fits
                without or no offload is enough,
                "offload_tokens_per_s": what copying the layers leaves one answer at most, or null}],
     "fits": whether a form that can be served fits, "best_form": the most precise one that does, or null}

The forms of a quantized checkpoint other than "published" are what its full-precision original would take.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from ondol.engine.kv_cache import choose_kv_dtype, kv_dtype_name
from ondol.engine.warm_up import MAX_TOKENS
from ondol.inspection.facts import ModelFacts, read_facts
from ondol.inspection.forms import FLOATS, ORIGINAL_FORMS, PUBLISHED, Form, draw_forms
from ondol.inspection.machine import Machine
from ondol.inspection.outline import ModelOutline
from ondol.kernels.kv_layer import FLOAT8
from ondol.modeling.architecture import read_config
from ondol.modeling.footprint import Footprint, Load, measure_footprint
from ondol.modeling.loading import DTYPES, choose_dtype
from ondol.modeling.offload_plan import plan_offload, smallest_offload
from ondol.modeling.report import report_weights

BLOCK_SIZE = 16
# Beyond this many requests at once no engine is asked to go.
CONCURRENCY_LIMIT = 4096
DEFAULT_CONTEXT = 4096
# What a GPU reads from host memory over PCIe 4.0 x16, for bounds on a model that does so: 16 lanes of
# 16 GT/s are 31.5 GB/s, of which some four fifths arrive as payload.
BUS_BYTES_PER_S = 25e9


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for.

    Attributes:
        context: tokens of each request; None is the model's own, at most `DEFAULT_CONTEXT`.
        concurrency: requests at once.
        dtype: of what is not quantized; "auto" as an engine chooses it on the device.
        kv_dtype: of keys and values; "auto" is the form's own dtype, "fp8" codes with scales.
        offload_bytes: host memory for layers that stay there.
        is_deterministic: a CPU is to compute every row by itself, which takes more workspace.
    """

    context: int | None = None
    concurrency: int = 1
    dtype: str = "auto"
    kv_dtype: str = "auto"
    offload_bytes: int = 0
    is_deterministic: bool = False


@dataclass(frozen=True, slots=True)
class FormFit:
    """One form on the device; see the module for the fields."""

    form: str
    method: str
    dtype: str
    kv_dtype: str
    weights_bytes: int
    quantized_bytes: int
    bits_per_parameter: float
    kv_bytes_per_token: int
    kv_cache_bytes: int
    workspace_bytes: int
    total_bytes: int
    fits: bool
    fits_with_fp8_kv: bool
    max_context: int
    max_concurrency: int
    host_bytes: int
    offload_needed_bytes: int | None
    offload_tokens_per_s: float | None


@dataclass(frozen=True, slots=True)
class FitReport:
    """The answer; see the module for the fields."""

    facts: ModelFacts
    machine: Machine
    context: int
    concurrency: int
    forms: tuple[FormFit, ...]

    @property
    def best_form(self) -> str | None:
        """The most precise form that can be served and fits; a quantized checkpoint has but its own."""
        return next((fit.form for fit in self._servable() if fit.fits), None)

    @property
    def last_resort(self) -> FormFit | None:
        """Where nothing fits: the form that would with the fewest bytes in host memory."""
        if self.best_form is not None:
            return None
        needed = [(fit.offload_needed_bytes, fit) for fit in self._servable()]
        could_fit = [(size_bytes, fit) for size_bytes, fit in needed if size_bytes is not None]
        return min(could_fit, key=lambda pair: pair[0])[1] if could_fit else None

    @property
    def best_with_fp8_kv(self) -> str | None:
        """As `best_form`, but with keys and values in 8 bits."""
        return next((fit.form for fit in self._servable() if fit.fits_with_fp8_kv), None)

    def furthest(self, limit: Callable[[FormFit], int]) -> FormFit | None:
        """The servable form with the largest `limit`, of equals the most precise; None if all are 0."""
        fit = max(self._servable(), key=limit)
        return fit if limit(fit) > 0 else None

    def _servable(self) -> list[FormFit]:
        """Forms that can be served, the most precise first."""
        order = (PUBLISHED,) if self.facts.quantization else ORIGINAL_FORMS
        fits = {fit.form: fit for fit in self.forms}
        return [fits[form] for form in order if form in fits]

    def to_json(self) -> dict[str, Any]:
        """Ready for json.dumps."""
        return {
            "model": self.facts.name,
            "origin": self.facts.origin,
            "licence": self.facts.licence,
            "quantization": self.facts.quantization,
            "context": self.context,
            "concurrency": self.concurrency,
            "context_length": self.facts.context_length,
            "num_parameters": self.facts.num_parameters,
            "num_active_parameters": self.facts.num_active_parameters,
            "device": {
                "kind": self.machine.device,
                "name": self.machine.name,
                "total_bytes": self.machine.total_bytes,
                "usable_bytes": self.machine.usable_bytes,
                "host_bytes": self.machine.host_bytes,
                "kv_limit_bytes": self.machine.kv_limit_bytes,
            },
            "forms": [asdict(form) for form in self.forms],
            "fits": self.best_form is not None,
            "best_form": self.best_form,
        }


def measure_fit(outline: ModelOutline, machine: Machine, question: Question) -> FitReport:
    """Answer for every form of the model.

    Raises:
        ModelRefused: the model cannot be served.
    """
    facts = read_facts(outline)
    context = question.context or min(facts.context_length, DEFAULT_CONTEXT)
    dtype = choose_dtype(question.dtype, read_config(outline.folder), torch.device(machine.device))
    forms = tuple(
        _measure_form(form, facts, machine, context, question) for form in draw_forms(outline, FLOATS[dtype])
    )
    return FitReport(facts, machine, context, question.concurrency, forms)


@dataclass(frozen=True, slots=True)
class _Needs:
    """A form's bytes as a function of context and concurrency."""

    footprint: Footprint
    kv_dtype: torch.dtype
    num_rows: int
    weights_bytes: int
    is_deterministic: bool

    def kv_cache_bytes(self, context: int, concurrency: int) -> int:
        return self._num_tokens(context) * concurrency * self.footprint.kv_token_bytes(self.kv_dtype)

    def workspace_bytes(self, context: int, concurrency: int) -> int:
        # A step has as many rows as it may, or as the requests' prompts have together.
        num_rows = max(min(self.num_rows, context * concurrency), concurrency)
        num_tokens = self._num_tokens(context) * concurrency
        load = Load(context, concurrency, num_rows, num_tokens, self.is_deterministic)
        return self.footprint.workspace_bytes(load, self.kv_dtype)

    def total_bytes(self, context: int, concurrency: int) -> int:
        return (
            self.weights_bytes
            + self.kv_cache_bytes(context, concurrency)
            + self.workspace_bytes(context, concurrency)
        )

    def _num_tokens(self, context: int) -> int:
        return -(-context // BLOCK_SIZE) * BLOCK_SIZE


def _measure_form(
    form: Form, facts: ModelFacts, machine: Machine, context: int, question: Question
) -> FormFit:
    blueprint, concurrency = form.blueprint, question.concurrency
    kv_dtype = DTYPES.get(question.kv_dtype) or choose_kv_dtype(question.kv_dtype, blueprint.dtype)
    footprint, layers = measure_footprint(blueprint), blueprint.model.decoder_layers()
    offload = plan_offload(layers, question.offload_bytes)
    device_bytes, host_bytes = offload.split(footprint.weights_bytes, is_host=machine.device == "cpu")
    # A GPU's deterministic kernels need no more scratch than the others.
    is_deterministic = question.is_deterministic and machine.device == "cpu"
    needs = _Needs(footprint, kv_dtype, MAX_TOKENS[machine.device], device_bytes, is_deterministic)
    with_fp8_kv = replace(needs, kv_dtype=FLOAT8)
    usable_bytes, weights_bytes = machine.usable_bytes, footprint.weights_bytes
    has_host_room = host_bytes <= machine.host_bytes
    missing_bytes = needs.total_bytes(context, concurrency) - usable_bytes
    report = report_weights(blueprint.model)
    return FormFit(
        form=form.key,
        method=form.method,
        dtype=form.dtype,
        kv_dtype=kv_dtype_name(kv_dtype),
        weights_bytes=weights_bytes,
        quantized_bytes=sum(stored.num_bytes for stored in report.stored if stored.kind not in DTYPES),
        bits_per_parameter=round(8 * weights_bytes / facts.num_parameters, 3),
        kv_bytes_per_token=needs.footprint.kv_token_bytes(kv_dtype),
        kv_cache_bytes=needs.kv_cache_bytes(context, concurrency),
        workspace_bytes=needs.workspace_bytes(context, concurrency),
        total_bytes=needs.total_bytes(context, concurrency),
        fits=missing_bytes <= 0 and has_host_room,
        fits_with_fp8_kv=with_fp8_kv.total_bytes(context, concurrency) <= usable_bytes and has_host_room,
        max_context=_largest(
            facts.context_length, lambda tokens: needs.total_bytes(tokens, concurrency) <= usable_bytes
        ),
        max_concurrency=_largest(
            CONCURRENCY_LIMIT, lambda requests: needs.total_bytes(context, requests) <= usable_bytes
        ),
        host_bytes=host_bytes,
        offload_needed_bytes=_offload_needed(layers, missing_bytes + offload.saved_bytes, machine),
        offload_tokens_per_s=offload_tokens_per_s(host_bytes),
    )


def offload_tokens_per_s(host_bytes: int) -> float | None:
    """The most that one answer gets where this much is copied for each token; None without copies."""
    return round(BUS_BYTES_PER_S / host_bytes, 3) if host_bytes else None


def _offload_needed(layers: Sequence[nn.Module], missing_bytes: int, machine: Machine) -> int | None:
    """Host memory with which a form fits that lacks `missing_bytes` without any offload."""
    if missing_bytes <= 0 or machine.host_bytes == 0:
        return None
    plan = smallest_offload(layers, missing_bytes)
    return plan.host_bytes if plan is not None and plan.host_bytes <= machine.host_bytes else None


def _largest(limit: int, does_fit: Callable[[int], bool]) -> int:
    """The largest number up to `limit` that fits, 0 if not even 1 does; more never takes less."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if does_fit(middle) else (low, middle - 1)
    return low
