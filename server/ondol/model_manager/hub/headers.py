"""What a Hub model is made of, without its weights: configurations, and the headers of its weight files.

Knows nothing about what the tensors mean. The invariants: of a weight file no more is read than its
header and one read's surplus; what is written takes no disk for the weights, and every reader of
safetensors files that keeps off the data accepts it.
Format: https://huggingface.co/docs/safetensors (8-byte little-endian header length, JSON, data).
"""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ondol.errors import ModelRefused
from ondol.model_manager.catalog import HubSource
from ondol.model_manager.hub.cache import Hub
from ondol.model_manager.hub.client import HubClient, RemoteFile, RemoteModel, starts_at
from ondol.model_manager.hub.download import damaged
from ondol.model_manager.hub.errors import translated, unreachable
from ondol.model_manager.hub.files import WEIGHTS_SUFFIX, model_files, refuse_original_llama
from ondol.model_manager.hub.part import PartFile
from ondol.model_manager.progress import Progress
from ondol.model_manager.store import disk_full_as_error

# The model's, its generation's and its quantization's configuration, and the index of its weights.
OUTLINE_FILES = re.compile(r"(?!tokenizer).*config\.json|.*\.safetensors\.index\.json")
LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
FIRST_READ_BYTES = 128 * 1024
CHUNK_BYTES = 64 * 1024
NUM_CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class OutlineSource:
    """Where a model's outline lies.

    Attributes:
        folder: config.json beside weight files that have their published size and, unless the model is
            in the Hub's cache, nothing but their headers in them.
        commit: the commit that the revision meant.
        weight_bytes: published size of all weight files, headers included.
    """

    folder: Path
    repo: str
    commit: str
    weight_bytes: int


def fetch_outline(
    source: HubSource, folder: Path, *, progress: Progress | None = None, hub: Hub | None = None
) -> OutlineSource:
    """Write the outline of a Hub model into `folder`, an empty one; a cached model is named instead.

    Raises:
        SourceUnreachable, AccessDenied, ModelNotFound, DoesNotFit.
        ModelRefused: it is no model in Hugging Face layout, or a weight file's header is wrong.
    """
    refuse_original_llama(source.repo)
    hub = hub or Hub(progress or Progress())
    cached = hub.cached(source)
    if cached is not None:
        weight_bytes = sum(path.stat().st_size for path in cached.glob(f"*{WEIGHTS_SUFFIX}"))
        return OutlineSource(cached, source.repo, cached.name, weight_bytes)
    client = hub.client
    model = client.model(source)
    names = model_files(source.repo, model.files)
    weights = [model.files[name] for name in names if name.endswith(WEIGHTS_SUFFIX)]
    sides = [model.files[name] for name in names if OUTLINE_FILES.fullmatch(name)]
    with (
        disk_full_as_error(folder),
        translated(source, client.endpoint, client.timeout_s),
        ThreadPoolExecutor(NUM_CONNECTIONS, thread_name_prefix="hub-headers") as pool,
    ):
        # The configuration first: what refuses access to it would refuse every other file as well.
        for file in sides:
            client.patiently(partial(fetch_side_file, client, model, file, folder))
        tasks = [partial(fetch_header, client, model, file, folder / file.name) for file in weights]
        for future in [pool.submit(client.patiently, task) for task in tasks]:
            future.result()
    weight_bytes = sum(file.size_bytes or 0 for file in weights)
    return OutlineSource(folder, model.repo, model.commit, weight_bytes)


def fetch_side_file(client: HubClient, model: RemoteModel, file: RemoteFile, folder: Path) -> None:
    """One small file, whole, compared with the digest that the Hub publishes where it does."""
    path = folder / file.name
    path.unlink(missing_ok=True)
    with client.stream(model, file.name) as response, PartFile(path, file) as part:
        for chunk in response.iter_bytes(CHUNK_BYTES):
            if part.size_bytes > (file.size_bytes or 0):
                break
            part.append(chunk)
        is_intact = file.digest is None or part.is_intact()
    if not is_intact:
        path.unlink()
        raise damaged(file.name)


def fetch_header(client: HubClient, model: RemoteModel, file: RemoteFile, path: Path) -> None:
    """The header of one weight file, in a sparse file of the weight file's size.

    Raises:
        ModelRefused: the header is too long, is none, or describes a file of another size.
    """
    size_bytes = file.size_bytes or 0
    head = read_bytes(client, model, file, 0, min(FIRST_READ_BYTES, size_bytes))
    header_bytes = LENGTH_BYTES + int.from_bytes(head[:LENGTH_BYTES], "little")
    if not LENGTH_BYTES < header_bytes <= min(LENGTH_BYTES + MAX_HEADER_BYTES, size_bytes):
        raise bad_header(model, file, f"it claims a length of {header_bytes - LENGTH_BYTES} bytes")
    if len(head) < header_bytes:
        head += read_bytes(client, model, file, len(head), header_bytes)
    with path.open("wb") as stream:
        stream.write(head[:header_bytes])
        stream.truncate(size_bytes)
    try:
        with safe_open(path, framework="numpy"):  # opening compares all offsets with the file's size
            pass
    except SafetensorError as error:
        raise bad_header(model, file, str(error)) from error


def read_bytes(client: HubClient, model: RemoteModel, file: RemoteFile, start: int, stop: int) -> bytes:
    """Bytes `start` to before `stop`; a server without ranges is read up to there and then left.

    Raises:
        SourceUnreachable: the server sends other bytes or fewer.
    """
    received = bytearray()
    with client.stream(model, file.name, start, stop) as response:
        offset = 0 if response.status_code == 200 else start
        if not starts_at(response, offset):
            raise unreachable(client.endpoint, f"it sent another part of {file.name} than was asked for")
        for chunk in response.iter_bytes(CHUNK_BYTES):
            received += chunk
            if offset + len(received) >= stop:
                break
    if offset + len(received) < stop:
        raise unreachable(client.endpoint, f"{file.name} is shorter than it says")
    return bytes(received[start - offset : stop - offset])


def bad_header(model: RemoteModel, file: RemoteFile, reason: str) -> ModelRefused:
    """The error for a weight file that is no safetensors file."""
    return ModelRefused(f"{file.name} of {model.repo} has no valid safetensors header: {reason}.")
