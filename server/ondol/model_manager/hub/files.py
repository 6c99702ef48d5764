"""Which files of a Hub repository make up a model, and whether a folder has them all.

Knows nothing about the network. The invariant: pickled weights are never chosen.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from ondol.errors import ModelRefused

WEIGHTS_SUFFIX = ".safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
SIDE_SUFFIXES = (".json", ".jinja", ".model", ".txt", ".tiktoken")
PICKLE_SUFFIXES = (".bin", ".pth", ".pt", ".ckpt")
# The publisher's own layout beside the Hugging Face one would double the download.
OTHER_LAYOUT_PREFIXES = ("consolidated", "params.json")
# What else a model may bring: its configurations, its tokenizer, its chat template.
SIDE_FILES = re.compile(
    r".*config\.json|.*\.safetensors\.index\.json|tokenizer.*\.(json|model|txt)|.*\.(model|tiktoken|jinja)"
    r"|(vocab|tekken|added_tokens|special_tokens_map|chat_template)\.json|(vocab|merges)\.txt"
)
ORIGINAL_LLAMA = re.compile(r"meta-llama/Llama-2-(7b|13b|70b)(-chat)?")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def model_files(repo: str, paths: Iterable[str]) -> list[str]:
    """Those files, out of a repository's paths, that a model needs.

    Raises:
        ModelRefused: there is no config.json or there are no safetensors weights.
    """
    every_path = list(paths)
    top_level = [
        path for path in every_path if "/" not in path and not path.startswith(OTHER_LAYOUT_PREFIXES)
    ]
    chosen = [path for path in top_level if path.endswith(WEIGHTS_SUFFIX) or SIDE_FILES.fullmatch(path)]
    refuse_pickle(repo, every_path, has_weights=any(path.endswith(WEIGHTS_SUFFIX) for path in chosen))
    if "config.json" not in chosen:
        raise ModelRefused(f"{repo} has no config.json, so it is no model in Hugging Face layout.")
    return chosen


def refuse_original_llama(repo: str) -> None:
    """Refuse Meta's own edition of Llama 2 by its name alone, before anything is asked of the Hub.

    Raises:
        ModelRefused: with the name of the edition in Hugging Face layout.
    """
    if ORIGINAL_LLAMA.fullmatch(repo):
        raise ModelRefused(
            f"{repo} holds the original .pth weights, and Ondol reads weights from .safetensors files. "
            f"Use {repo}-hf instead."
        )


def refuse_pickle(source: str, paths: Iterable[str], *, has_weights: bool) -> None:
    """Raise ModelRefused, with the way out, if there are no safetensors weights."""
    if has_weights:
        return
    reason = (
        "it has only pickled weights" if any(p.endswith(PICKLE_SUFFIXES) for p in paths) else "it has none"
    )
    _, _, name = source.rpartition("/")
    hint = ""
    if name.startswith("Llama-2-") and not name.endswith("-hf"):
        hint = f" Use {source}-hf instead."
    raise ModelRefused(
        f"{source} cannot be served: Ondol reads weights from .safetensors files and {reason}.{hint}"
    )


def check_folder(folder: Path) -> None:
    """Check that a folder holds a model, as far as file names tell.

    Raises:
        ModelRefused: with the file that is missing.
    """
    names = [entry.name for entry in folder.iterdir()]
    if any(name.endswith(PICKLE_SUFFIXES) for name in names):
        refuse_pickle(str(folder), names, has_weights=any(name.endswith(WEIGHTS_SUFFIX) for name in names))
    missing = missing_files(folder)
    if missing:
        raise ModelRefused(f"{folder} is no complete model folder: {missing[0]} is missing.")


def missing_files(folder: Path) -> list[str]:
    """Names of files without which the folder is no model; the check of shards reads their index."""
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        missing.append(" or ".join(TOKENIZER_FILES[:2]))
    index = folder / WEIGHTS_INDEX
    if index.is_file():
        missing += [shard for shard in indexed_shards(index) if not (folder / shard).is_file()]
    elif not any(folder.glob(f"*{WEIGHTS_SUFFIX}")):
        missing.append(f"model{WEIGHTS_SUFFIX}")
    return missing


def indexed_shards(index: Path) -> list[str]:
    """The weight files that an index names.

    Raises:
        ModelRefused: the index cannot be read.
    """
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return sorted(set(weight_map.values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelRefused(f"{index} is not a readable index of weights.") from error
