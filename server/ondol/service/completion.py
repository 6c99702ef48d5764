"""From plain prompts to what is to be generated: their continuations, or their own likelihood.

Knows nothing about HTTP or templates. Invariant: text prompts are tokenized with the model's special
tokens, token ids are taken as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from ondol.errors import InvalidRequest, PromptTooLong
from ondol.model_manager.loaded_model import LoadedModel
from ondol.service.answer import Caller, Generation
from ondol.service.generation import GenerationRequest
from ondol.service.sampling_options import SamplingOptions, check_text_size, check_token_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptBatch:
    """Prompts that are continued in one answer.

    Attributes:
        prompts: texts, or token ids.
        options: how tokens are chosen; with `echoes`, its logprobs count for the prompts' tokens too.
        num_choices: continuations shown of each prompt.
        num_candidates: continuations generated of each; the likeliest are shown.
        stop: strings that end a continuation; they are not part of it.
        echoes: whether each answer begins with its prompt.
    """

    prompts: Sequence[str | list[int]]
    options: SamplingOptions
    num_choices: int = 1
    num_candidates: int = 1
    stop: tuple[str, ...] = ()
    echoes: bool = False


def prepare_completion(model: LoadedModel, batch: PromptBatch, caller: Caller) -> Generation:
    """Tokenize and check every prompt; blocks, so call it in a thread. Raises InvalidRequest."""
    options = _options(batch)
    requests: list[GenerationRequest] = []
    prompt_texts: list[str] = []
    num_prompt_tokens = 0
    for prompt in batch.prompts:
        prompt_ids = encode_prompt(model, prompt)
        num_prompt_tokens += len(prompt_ids)
        params = options.params(model, len(prompt_ids), "prompt")
        requests += [
            GenerationRequest(
                prompt_ids=prompt_ids,
                params=msgspec.structs.replace(params, choice=choice),
                stop=batch.stop,
                is_continuation=True,
                cache_salt=caller.cache_salt,
                deadline_s=caller.deadline_s,
                priority=caller.priority,
            )
            for choice in range(batch.num_candidates)
        ]
        if batch.echoes:
            text = prompt if isinstance(prompt, str) else model.tokenizer.decode(prompt)
            prompt_texts += [text] * batch.num_candidates
    return Generation(
        model,
        tuple(requests),
        num_prompt_tokens,
        prompt_texts=tuple(prompt_texts),
        num_candidates=batch.num_candidates,
        num_kept=batch.num_choices,
    )


def encode_prompt(
    model: LoadedModel, prompt: str | list[int], *, add_special_tokens: bool = True, param: str = "prompt"
) -> list[int]:
    """Token ids of one prompt; blocks on long texts. Raises InvalidRequest naming `param`."""
    if isinstance(prompt, str):
        check_text_size(prompt, model.max_model_len, param)
        encode = model.tokenizer.encode_text if add_special_tokens else model.tokenizer.encode_rendered
        prompt_ids = encode(prompt)
    else:
        # First the length, so that a huge list is not looked through.
        if len(prompt) > model.max_model_len:
            raise PromptTooLong(len(prompt), model.max_model_len, param=param)
        check_token_ids(prompt, model.vocab_size, param)
        prompt_ids = prompt
    if not prompt_ids:
        raise InvalidRequest("The prompt is empty.", param=param)
    return prompt_ids


def _options(batch: PromptBatch) -> SamplingOptions:
    options = batch.options
    if batch.echoes:
        options = replace(options, prompt_logprobs=options.logprobs)
    if batch.num_candidates > batch.num_choices and options.logprobs is None:
        # Candidates are ranked by them.
        options = replace(options, logprobs=0)
    return options
