"""The tokenizer of one repository, for serving the weights of another with it.

Knows nothing about weights: none is fetched. The invariant: what the Hub's cache holds is used as it
is; the Hub is asked only for a tokenizer that the cache lacks.
"""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from ondol.errors import ModelRefused
from ondol.model_manager.catalog import HubSource
from ondol.model_manager.hub.client import HubClient
from ondol.model_manager.hub.errors import translated
from ondol.model_manager.hub.files import TOKENIZER_FILES
from ondol.model_manager.progress import Progress

# The configurations name the tokens that end an answer.
PATTERNS = [
    *TOKENIZER_FILES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.*",
    "config.json",
    "generation_config.json",
]


def tokenizer_folder(source: HubSource, progress: Progress) -> Path:
    """The cached snapshot with the repository's tokenizer files.

    Raises:
        SourceUnreachable, AccessDenied, ModelNotFound.
        ModelRefused: the repository has no tokenizer.
    """
    try:
        cached = Path(snapshot_download(source.repo, revision=source.revision, local_files_only=True))
        if _has_tokenizer(cached):
            return cached
    except LocalEntryNotFoundError:
        progress.note(f"Fetching the tokenizer of {source.repo}.")
    client = HubClient(progress)
    with translated(source, client.endpoint, client.timeout_s):
        folder = Path(
            client.patiently(
                lambda: snapshot_download(
                    source.repo,
                    revision=source.revision,
                    endpoint=client.endpoint,
                    etag_timeout=client.timeout_s,
                    allow_patterns=PATTERNS,
                )
            )
        )
    if not _has_tokenizer(folder):
        raise ModelRefused(f"{source.repo} has no tokenizer ({', '.join(TOKENIZER_FILES)}).")
    return folder


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_FILES)
