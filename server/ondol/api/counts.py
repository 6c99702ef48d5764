"""What an answer tells about its cost: tokens and time, in the words of the wire.

Knows nothing about endpoints. Invariant: the same counts make the same words, streamed or whole.
"""

from msgspec import UNSET, UnsetType

from ondol.api.answers import AnswerTimings, PromptTokensDetails, Usage
from ondol.api.generation_fields import GenerationFields
from ondol.service.generation import Timings
from ondol.service.whole_answer import TokenCount


def usage_of(count: TokenCount) -> Usage:
    """OpenAI's usage object."""
    return Usage(
        prompt_tokens=count.num_prompt,
        completion_tokens=count.num_completion,
        total_tokens=count.num_prompt + count.num_completion,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=count.num_cached),
    )


def timings_of(
    fields: GenerationFields, count: TokenCount, timings: Timings | None, num_choices: int
) -> AnswerTimings | UnsetType:
    """Ondol's timings, where they are asked for and known."""
    if not fields.include_timings or timings is None:
        return UNSET
    num_decoded = count.num_completion - num_choices
    is_measured = num_decoded > 0 and timings.decode_s > 0
    return AnswerTimings(
        queue_s=timings.queue_s,
        prefill_s=timings.prefill_s,
        decode_s=timings.decode_s,
        tokens_per_second=num_decoded / timings.decode_s if is_measured else None,
    )
