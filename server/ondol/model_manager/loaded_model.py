"""A model that answers requests, as those who hold a lease on it see it.

Knows nothing about how long it stays. The invariant: frozen; whoever holds one may use it until the
lease ends.
"""

from dataclasses import dataclass
from typing import Any

from ondol.engine.client import EngineClient
from ondol.model_manager.generation_defaults import GenerationDefaults
from ondol.text.tokenizer import TextTokenizer


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that answers requests.

    Attributes:
        name: the name that requests use.
        max_model_len: tokens of prompt plus answer.
        vocab_size: token ids run from 0 to this; the tokenizer may know fewer or more.
        defaults: sampling parameters where a request names none.
        created: when it was loaded, in Unix seconds.
        source: where its files came from; see `ResolvedModel`.
    """

    name: str
    tokenizer: TextTokenizer
    engine: EngineClient
    max_model_len: int
    vocab_size: int
    defaults: GenerationDefaults
    created: int
    source: dict[str, Any]
