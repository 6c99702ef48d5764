"""A model's tokenizer without its weights: what showing tokens and prompts needs.

Knows nothing about tokenizing. Invariant: no weights are fetched for it, except with a model that
comes as one file.
"""

from dataclasses import dataclass
from pathlib import Path

from ondol.model_manager.catalog import WheelSource
from ondol.model_manager.progress import Progress
from ondol.model_manager.resolve import find, resolve, tokenizer_place


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """The folder that holds a model's tokenizer.

    Attributes:
        name: the model's.
        chat_template: Jinja source that the catalog puts in place of the folder's own.
    """

    name: str
    folder: Path
    chat_template: str | None = None


def tokenizer_files(model: str, home: Path, progress: Progress | None = None) -> TokenizerFiles:
    """Find a model's tokenizer, and fetch it if this machine does not have it.

    Raises:
        ModelNotFound, ModelRefused, SourceUnreachable, AccessDenied, DoesNotFit.
    """
    progress = progress or Progress()
    known = find(model, home)
    template = known.source.chat_template if known.source else None
    if known.source and known.source.tokenizer:
        return TokenizerFiles(known.name, tokenizer_place(known.source.tokenizer, progress), template)
    if known.path is not None:
        return TokenizerFiles(known.name, known.path, template)
    if isinstance(known.source, WheelSource):
        return TokenizerFiles(known.name, resolve(model, home, progress).path, template)
    assert known.source is not None, "a model without a folder has a source"
    from ondol.model_manager.hub.tokenizer import tokenizer_folder  # noqa: PLC0415 - only Hub models wait for the Hub's library

    return TokenizerFiles(known.name, tokenizer_folder(known.source, progress), template)
