"""A checkpoint that is refused leaves the model that is being served alone."""

import asyncio
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import reference_model, reference_tokens
from support.served_models import save_served_model

from ondol.config import Settings
from ondol.engine.sampling_params import SamplingParams
from ondol.errors import ModelRefused
from ondol.model_manager.load_order import LoadOrder
from ondol.model_manager.manager import ModelManager

PROMPT = [5, 6, 7, 8]
NUM_TOKENS = 32
EXPERT = "model.layers.1.mlp.experts.3.up_proj.weight"


def lose_an_expert(file):
    tensors = load_file(file)
    del tensors[EXPERT]
    save_file(tensors, file, metadata={"format": "pt"})


def misshape_an_expert(file):
    tensors = load_file(file)
    save_file({**tensors, EXPERT: torch.zeros(3, 5)}, file, metadata={"format": "pt"})


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-100])


async def tokens_of(model):
    params = SamplingParams(max_tokens=NUM_TOKENS, temperature=0.0, ignore_eos=True)
    return [token async for output in model.engine.generate(PROMPT, params) for token in output.token_ids]


# How the checkpoint is damaged, what is asked for, and what the one line must say.
DAMAGES = [
    (lose_an_expert, "none", f"lacks the tensor {EXPERT}"),
    (lose_an_expert, "nf4", f"lacks the tensor {EXPERT}"),
    (misshape_an_expert, "none", f"{EXPERT} in .*model.safetensors has shape"),
    (cut_short, "none", "model.safetensors is corrupt or truncated"),
]


SETTINGS = Settings(kv_cache_memory="4MiB", threads=1, max_loaded_models=2)


async def serve_while_others_are_refused(good, bad_folders):
    """Tokens of the good model beside each refusal and after all of them, and what was said."""
    manager = ModelManager(SETTINGS.manager(), SETTINGS.engine())
    meanwhile, refusals = [], []
    try:
        model = await manager.load(LoadOrder(str(good)))
        for folder, quantization in bad_folders:
            answer = asyncio.create_task(tokens_of(model))
            with pytest.raises(ModelRefused) as refusal:
                await manager.load(LoadOrder(str(folder), quantization=quantization))
            refusals.append(str(refusal.value))
            meanwhile.append(await answer)
        assert [served.name for served in manager.served()] == ["good"]
        return meanwhile, await tokens_of(model), refusals
    finally:
        await manager.close()


def test_refused_checkpoints_are_named_in_one_line_and_disturb_nobody(tmp_path):
    good = save_served_model(tmp_path / "good", "llama")
    bad_folders = []
    for index, (damage, quantization, _) in enumerate(DAMAGES):
        folder = save_served_model(tmp_path / f"bad-{index}", "qwen2_moe")
        damage(folder / "model.safetensors")
        bad_folders.append((folder, quantization))
    meanwhile, after, refusals = asyncio.run(serve_while_others_are_refused(good, bad_folders))
    expected = reference_tokens(reference_model(good), PROMPT, NUM_TOKENS)
    assert [*meanwhile, after] == [expected] * (len(DAMAGES) + 1)
    for refusal, (_, _, named) in zip(refusals, DAMAGES, strict=True):
        assert "\n" not in refusal
        assert re.search(named, refusal)
