"""GET /props: what a page has to know of a model before it can offer its parameters.

Knows nothing about loading. Invariant: reading it changes nothing; it loads no model.
"""

import re

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from ondol.api.context import context_of
from ondol.errors import InvalidRequest, ModelNotFound
from ondol.model_manager.load_order import normalized
from ondol.model_manager.loaded_model import LoadedModel
from ondol.service.sampling_options import SamplingOptions
from ondol.text.tools.tool_format import tool_format

router = APIRouter()

# How templates on the Hub spell the switch of a model's thinking.
THINKING_ARGUMENTS = ("enable_thinking", "thinking")
TEMPLATE_CODE = re.compile(r"\{[{%].*?[%}]\}", re.DOTALL)
FLOATS = frozenset({"float32", "bfloat16", "float16"})


class GenerationSettings(msgspec.Struct, frozen=True):
    """What a request without a word gets; the model's own recommendation, else OpenAI's default."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float


class TemplateAbilities(msgspec.Struct, frozen=True):
    """What the chat template can do.

    `tools` is the family of its calls, null where tools are ignored; `thinking_argument` the name in
    chat_template_kwargs that switches thinking, null where there is none.
    """

    has_template: bool
    takes_system: bool
    tools: str | None
    thinking_argument: str | None


class Props(msgspec.Struct, frozen=True):
    """The answer of /props; `quantization` is null for plain weights."""

    id: str
    default_generation_settings: GenerationSettings
    max_model_len: int
    vocab_size: int
    dtype: str
    quantization: str | None
    chat_template: TemplateAbilities
    object: str = "model.props"


@router.get("/props", summary="Tell a loaded model's defaults and abilities")
async def props(request: Request, model: str | None = None) -> Response:
    """Of the named model, or of the only one that is loaded."""
    return Response(msgspec.json.encode(_props(_loaded(request, model))), media_type="application/json")


def _loaded(request: Request, name: str | None) -> LoadedModel:
    models = context_of(request).manager.served()
    if name:
        wanted = [model for model in models if model.name == normalized(name)]
        if not wanted:
            raise ModelNotFound(name, tuple(model.name for model in models))
        return wanted[0]
    if len(models) != 1:
        raise InvalidRequest("Name a loaded model: /props?model=NAME", param="model")
    return models[0]


def _props(model: LoadedModel) -> Props:
    params = SamplingOptions(max_tokens=0).params(model, 0, "model")
    ready = model.engine.ready
    quantized = [stored.kind for stored in ready.weights.stored if stored.kind not in FLOATS]
    return Props(
        id=model.name,
        default_generation_settings=GenerationSettings(
            temperature=params.temperature,
            top_p=params.top_p,
            top_k=params.top_k,
            min_p=params.min_p,
            repetition_penalty=params.repetition_penalty,
            presence_penalty=params.presence_penalty,
            frequency_penalty=params.frequency_penalty,
        ),
        max_model_len=model.max_model_len,
        vocab_size=model.vocab_size,
        dtype=ready.dtype,
        quantization=quantized[0] if quantized else None,
        chat_template=_abilities(model),
    )


def _abilities(model: LoadedModel) -> TemplateAbilities:
    template = model.tokenizer.chat_template
    if template is None:
        return TemplateAbilities(has_template=False, takes_system=False, tools=None, thinking_argument=None)
    tools = tool_format(model.tokenizer)
    words = {word for code in TEMPLATE_CODE.findall(template.source) for word in re.findall(r"\w+", code)}
    return TemplateAbilities(
        has_template=True,
        takes_system=template.takes_system or model.tokenizer.merges_system_prompt,
        tools=None if tools is None else tools.name,
        thinking_argument=next((name for name in THINKING_ARGUMENTS if name in words), None),
    )
