"""Model folders whose weights files hold headers only, as they are fetched from a Hub.

Files are sparse: they have their full size and take no room.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from shutil import copyfile
from typing import Any

HEADER_BYTES = {"F32": 4, "I32": 4, "F16": 2, "BF16": 2, "U8": 1, "I8": 1}
PUBLISHED = Path(__file__).parents[1] / "data" / "configs"


def published_folder(folder: Path, name: str) -> Path:
    """A folder with nothing but a published model's config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    copyfile(PUBLISHED / f"{name}.json", folder / "config.json")
    return folder


def hollow(source: Path, folder: Path) -> Path:
    """A copy of a model folder without the contents of its weights."""
    folder.mkdir()
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            copyfile(file, folder / file.name)
            continue
        with file.open("rb") as original:
            length = original.read(8)
            header = original.read(int.from_bytes(length, "little"))
        with (folder / file.name).open("wb") as copy:
            copy.write(length + header)
            copy.truncate(file.stat().st_size)
    return folder


def write_header(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """A weights file of these tensors (name -> dtype as headers spell it, shape), all zeros."""
    header: dict[str, Any] = {}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        end = offset + math.prod(shape) * HEADER_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)


def gptq_tensors(
    bits: int, group_size: int, num_in: int, num_out: int
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What a GPTQ module stores, by the format's definition."""
    per_word = 32 // bits
    return {
        "qweight": ("I32", (num_in // per_word, num_out)),
        "qzeros": ("I32", (num_in // group_size, num_out // per_word)),
        "scales": ("F16", (num_in // group_size, num_out)),
        "g_idx": ("I32", (num_in,)),
    }


def write_gptq_headers(folder: Path) -> None:
    """Headers of a published qwen2 or qwen2_moe model in GPTQ, from its config.json.

    As the published ones: projections quantized, a zero bias for each that has none, routers, embeddings and
    head in float16.
    """
    config = json.loads((folder / "config.json").read_text())
    bits, group_size = config["quantization_config"]["bits"], config["quantization_config"]["group_size"]
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    kv_width = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {
        "model.embed_tokens.weight": ("F16", (vocab, hidden)),
        "model.norm.weight": ("F16", (hidden,)),
    }
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = ("F16", (vocab, hidden))

    def add(prefix: str, num_in: int, num_out: int) -> None:
        for name, tensor in gptq_tensors(bits, group_size, num_in, num_out).items():
            tensors[f"{prefix}.{name}"] = tensor
        tensors[f"{prefix}.bias"] = ("F16", (num_out,))

    def add_feed_forward(prefix: str, width: int) -> None:
        add(f"{prefix}.gate_proj", hidden, width)
        add(f"{prefix}.up_proj", hidden, width)
        add(f"{prefix}.down_proj", width, hidden)

    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        for name, num_out in (("q", hidden), ("k", kv_width), ("v", kv_width), ("o", hidden)):
            add(f"{layer}.self_attn.{name}_proj", hidden, num_out)
        for norm in ("input", "post_attention"):
            tensors[f"{layer}.{norm}_layernorm.weight"] = ("F16", (hidden,))
        if "num_experts" not in config:
            add_feed_forward(f"{layer}.mlp", config["intermediate_size"])
            continue
        tensors[f"{layer}.mlp.gate.weight"] = ("F16", (config["num_experts"], hidden))
        tensors[f"{layer}.mlp.shared_expert_gate.weight"] = ("F16", (1, hidden))
        add_feed_forward(f"{layer}.mlp.shared_expert", config["shared_expert_intermediate_size"])
        for expert in range(config["num_experts"]):
            add_feed_forward(f"{layer}.mlp.experts.{expert}", config["moe_intermediate_size"])
    write_header(folder / "model.safetensors", tensors)
