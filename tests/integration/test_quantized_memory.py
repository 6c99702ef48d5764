"""A mixture of experts of Qwen1.5-MoE-A2.7B's real sizes is as small in memory as 4 bits promise."""

import asyncio
import json
from itertools import chain
from pathlib import Path

import pytest
import torch

from ondol.engine.client import EngineClient
from ondol.engine.messages import EngineConfig, QuantizationConfig
from ondol.modeling.checkpoint_writer import INDEX_FILE, CheckpointWriter, PlannedTensor

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HIDDEN = 2048
NUM_EXPERTS = 60
EXPERT_WIDTH = 1408
SHARED_WIDTH = 5632
# The vocabulary alone is not the real one (151,936): embeddings and head stay in bf16 anyway.
VOCAB_SIZE = 1024
REAL_VOCAB_SIZE = 151_936
REAL_NUM_LAYERS = 24
CONFIG = {
    "model_type": "qwen2_moe",
    "architectures": ["Qwen2MoeForCausalLM"],
    "vocab_size": VOCAB_SIZE,
    "hidden_size": HIDDEN,
    "intermediate_size": SHARED_WIDTH,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "max_position_embeddings": 8192,
    "num_experts": NUM_EXPERTS,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": EXPERT_WIDTH,
    "shared_expert_intermediate_size": SHARED_WIDTH,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
POLL_INTERVAL_S = 0.02
SCRATCH_LIMIT_BYTES = 10**9


def planned(name: str, *shape: int) -> PlannedTensor:
    return PlannedTensor(name, torch.bfloat16, shape)


def layer_tensors(index: int) -> list[PlannedTensor]:
    layer = f"model.layers.{index}"
    attention = [planned(f"{layer}.self_attn.{name}_proj.weight", HIDDEN, HIDDEN) for name in "qkvo"]
    biases = [planned(f"{layer}.self_attn.{name}_proj.bias", HIDDEN) for name in "qkv"]
    norms = [planned(f"{layer}.{name}_layernorm.weight", HIDDEN) for name in ("input", "post_attention")]
    routers = [
        planned(f"{layer}.mlp.gate.weight", NUM_EXPERTS, HIDDEN),
        planned(f"{layer}.mlp.shared_expert_gate.weight", 1, HIDDEN),
    ]
    shared = feed_forward(f"{layer}.mlp.shared_expert", SHARED_WIDTH)
    experts = (feed_forward(f"{layer}.mlp.experts.{expert}", EXPERT_WIDTH) for expert in range(NUM_EXPERTS))
    return [*attention, *biases, *norms, *routers, *shared, *chain.from_iterable(experts)]


def feed_forward(name: str, width: int) -> list[PlannedTensor]:
    return [
        planned(f"{name}.gate_proj.weight", width, HIDDEN),
        planned(f"{name}.up_proj.weight", width, HIDDEN),
        planned(f"{name}.down_proj.weight", HIDDEN, width),
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same weights with 2 and with 4 layers, one file per layer; removed at once, for their size."""
    folder = tmp_path_factory.mktemp("moe")
    full, half = folder / "4", folder / "2"
    for path, num_layers in ((full, 4), (half, 2)):
        path.mkdir()
        config = {**CONFIG, "num_hidden_layers": num_layers}
        (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_weights(full, 4)
    index = json.loads((full / INDEX_FILE).read_text(encoding="utf-8"))
    files = {
        name: file
        for name, file in index["weight_map"].items()
        if not name.startswith(("model.layers.2.", "model.layers.3."))
    }
    (half / INDEX_FILE).write_text(json.dumps({"weight_map": files}), encoding="utf-8")
    for file in set(files.values()):
        (half / file).symlink_to(full / file)
    yield {2: half, 4: full}
    for file in full.glob("*.safetensors"):
        file.unlink()


def write_weights(folder: Path, num_layers: int) -> None:
    rest = [
        planned("model.embed_tokens.weight", VOCAB_SIZE, HIDDEN),
        planned("model.norm.weight", HIDDEN),
        planned("lm_head.weight", VOCAB_SIZE, HIDDEN),
    ]
    groups = [rest, *(layer_tensors(index) for index in range(num_layers))]
    pattern = torch.randn(SHARED_WIDTH * HIDDEN, generator=torch.Generator().manual_seed(0)) * 0.02
    pattern = pattern.to(torch.bfloat16)
    with CheckpointWriter(folder, groups, shard_bytes=1) as writer:
        for tensor in (tensor for group in groups for tensor in group):
            writer.write(tensor.name, pattern[: tensor.num_bytes // 2].view(tensor.shape))


def anonymous_bytes(process_id: int) -> int:
    """Resident memory that no file backs: mapped weights come and go as the kernel likes."""
    for line in Path(f"/proc/{process_id}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("this kernel does not tell RssAnon")


async def measure_load(folder: Path) -> tuple[int, int, EngineClient]:
    """Anonymous memory after the load, and its peak until then, of a real engine process."""
    client = await EngineClient.spawn()
    peak_bytes = 0

    async def watch() -> None:
        nonlocal peak_bytes
        while True:
            peak_bytes = max(peak_bytes, anonymous_bytes(client.process_id))
            await asyncio.sleep(POLL_INTERVAL_S)

    watcher = asyncio.create_task(watch())
    config = EngineConfig(
        model_path=str(folder),
        device="cpu",
        dtype="bfloat16",
        quantization=QuantizationConfig(method="nf4", use_double_quant=True),
        max_model_len=64,
        max_num_seqs=1,
        max_num_batched_tokens=64,
        kv_cache_bytes=8 * 2**20,
    )
    await client.load(config, max_queue_size=1)
    final_bytes = anonymous_bytes(client.process_id)
    watcher.cancel()
    return final_bytes, peak_bytes, client


def test_nf4_with_double_quantization_takes_a_quarter_of_bf16_and_little_scratch(folders, record_property):
    async def measure(num_layers: int) -> tuple[int, int]:
        final_bytes, peak_bytes, client = await measure_load(folders[num_layers])
        (nf4, plain) = client.ready.weights.stored
        assert (nf4.kind, plain.kind) == ("nf4", "bfloat16")
        assert nf4.bits_per_weight == pytest.approx(4.127, abs=5e-4)
        await client.close()
        return final_bytes, peak_bytes

    final_bytes = {}
    for num_layers in (2, 4):
        final_bytes[num_layers], peak_bytes = asyncio.run(measure(num_layers))
        record_property(f"final_bytes_{num_layers}", final_bytes[num_layers])
        record_property(f"scratch_bytes_{num_layers}", peak_bytes - final_bytes[num_layers])
        assert peak_bytes < final_bytes[num_layers] + SCRATCH_LIMIT_BYTES
    layer_bytes = sum(tensor.num_bytes for tensor in layer_tensors(0))
    growth_bytes = (final_bytes[4] - final_bytes[2]) / 2
    record_property("share_of_bf16", growth_bytes / layer_bytes)
    # By arithmetic 0.258; much less would mean that not everything was counted.
    assert 0.25 * layer_bytes <= growth_bytes <= 0.27 * layer_bytes
    unquantized_bytes = 2 * REAL_VOCAB_SIZE * HIDDEN * torch.bfloat16.itemsize
    assert REAL_NUM_LAYERS * growth_bytes + unquantized_bytes < 8.7e9
