import json
from dataclasses import replace

import pytest
import torch
from support.checkpoints import save_checkpoint

from ondol.errors import DoesNotFit, ModelRefused
from ondol.kernels.kv_layer import FLOAT8
from ondol.modeling.loading import draw_model, load_model
from ondol.modeling.memory_plan import Demand, choose_quantization, measure_needs
from ondol.modeling.quantization.on_load import OnLoad

CPU = torch.device("cpu")
FORMS = {
    "none": None,
    "int8": OnLoad("int8"),
    "nf4": OnLoad("nf4"),
    "nf4 with double quantization": OnLoad("nf4", use_double_quant=True),
}
DEMAND = Demand(
    kv_cache_bytes=None, max_model_len=64, max_num_seqs=4, max_num_batched_tokens=8, kv_limit_bytes=10**9
)
TOKEN_BYTES = 2 * 3 * 2 * 64 * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Config alone would do; double quantization pays only where matrices are not tiny."""
    return save_checkpoint(
        tmp_path_factory.mktemp("plan"), "llama", hidden_size=256, intermediate_size=512, head_dim=64
    )


@pytest.fixture(scope="module")
def needs(folder):
    return {
        name: measure_needs(draw_model(folder, CPU, "float32", on_load), DEMAND)
        for name, on_load in FORMS.items()
    }


def choose(folder, available_bytes, demand=DEMAND, asked=None):
    return choose_quantization(folder, CPU, "float32", asked or OnLoad("nf4"), demand, available_bytes)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("family", ["llama", "qwen2_moe", "qwen3"])
def test_weight_bytes_are_exact_before_any_weight_is_read(tmp_path, family, name):
    folder = save_checkpoint(tmp_path, family)
    planned = measure_needs(draw_model(folder, CPU, "bfloat16", FORMS[name]), DEMAND).weights_bytes
    assert planned == load_model(folder, CPU, "bfloat16", on_load=FORMS[name]).weights_bytes


def test_no_weight_is_read(tmp_path):
    folder = save_checkpoint(tmp_path, "llama")
    (folder / "model.safetensors").unlink()
    assert choose(folder, 10**9).name == "none"


@pytest.mark.parametrize("name", FORMS)
def test_the_most_precise_form_that_fits_is_chosen(folder, needs, name):
    choice = choose(folder, needs[name].total_bytes)
    assert choice.name == name
    assert choice.on_load == FORMS[name]
    assert "MiB of weights" in choice.reason


def test_the_reason_says_what_the_next_better_form_would_need(folder, needs):
    assert "none would need" in choose(folder, needs["int8"].total_bytes).reason


def test_other_settings_reach_the_chosen_form(folder, needs):
    asked = OnLoad("nf4", compute_dtype=torch.bfloat16, skip_modules=("o_proj",), quantize_head=True)
    on_load = choose(folder, needs["nf4"].total_bytes, asked=asked).on_load
    assert on_load is not None
    assert (on_load.compute_dtype, on_load.skip_modules, on_load.quantize_head) == (
        torch.bfloat16,
        ("o_proj",),
        True,
    )


def test_the_cache_counts_every_request_at_the_asked_context(needs):
    assert needs["none"].one_request_bytes == 64 * TOKEN_BYTES
    assert needs["none"].kv_cache_bytes == 4 * 64 * TOKEN_BYTES


def test_without_an_asked_context_the_model_own_counts_up_to_the_limit(folder):
    blueprint = draw_model(folder, CPU, "float32")
    demand = Demand(None, None, 4, 8, kv_limit_bytes=10**9)
    assert measure_needs(blueprint, demand).kv_cache_bytes == 4 * 512 * TOKEN_BYTES
    demand = Demand(None, None, 4, 8, kv_limit_bytes=12345)
    assert measure_needs(blueprint, demand).kv_cache_bytes == 12345


def test_a_cache_of_8_bits_counts_its_scales(folder):
    demand = Demand(None, 64, 4, 8, kv_limit_bytes=10**9, kv_dtype=FLOAT8)
    needs = measure_needs(draw_model(folder, CPU, "float32"), demand)
    assert needs.one_request_bytes == 64 * TOKEN_BYTES // (4 * 64) * (64 + 2)
    assert needs.kv_cache_bytes == 4 * needs.one_request_bytes


def test_an_asked_cache_size_is_taken_as_it_is(folder):
    demand = Demand(7_000_000, 64, 4, 8, kv_limit_bytes=1)
    assert measure_needs(draw_model(folder, CPU, "float32"), demand).kv_cache_bytes == 7_000_000


def test_where_not_all_requests_fit_at_once_the_smallest_form_is_taken_and_says_for_how_many(folder, needs):
    smallest = needs["nf4 with double quantization"]
    choice = choose(folder, smallest.total_bytes - 2 * smallest.one_request_bytes)
    assert choice.name == "nf4 with double quantization"
    assert "room for 2 of 4 requests" in choice.reason


@pytest.mark.parametrize("kv_cache_bytes", [None, 10**6])
def test_where_nothing_fits_the_numbers_say_so(folder, kv_cache_bytes):
    demand = Demand(kv_cache_bytes, 64, 4, 8, kv_limit_bytes=10**9)
    with pytest.raises(DoesNotFit, match=r"Not even nf4 with double quantization fits: .* MiB of weights"):
        choose(folder, 10**6, demand)


def test_where_nothing_fits_a_gpus_user_hears_of_the_last_resort(folder):
    demand = Demand(10**6, 64, 4, 8, kv_limit_bytes=10**9)
    needed_bytes = measure_needs(
        draw_model(folder, CPU, "float32", OnLoad("nf4", use_double_quant=True)), demand
    )
    with pytest.raises(DoesNotFit, match=r"As a last resort, slowly: --cpu-offload-gb 0\.01\.$"):
        choose(folder, needed_bytes.total_bytes - 1, demand)
    with pytest.raises(DoesNotFit, match=r"a smaller model\.$"):
        choose(folder, needed_bytes.total_bytes - 1, replace(demand, is_host=True))


def test_offload_lets_a_more_precise_form_fit(folder, needs):
    demand = replace(DEMAND, offload_bytes=10**9)
    layer_bytes = 1000
    assert choose(folder, needs["none"].total_bytes - layer_bytes, demand).name == "none"
    assert choose(folder, needs["none"].total_bytes - layer_bytes).name == "int8"


def test_a_quantized_checkpoint_is_served_as_published(folder, tmp_path):
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    raw["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 64, "desc_act": False}
    (tmp_path / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    choice = choose(tmp_path, 0)
    assert (choice.name, choice.on_load) == ("as published", None)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_config_that_cannot_be_read_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelRefused, match=r"config\.json"):
        choose(tmp_path, 10**9)
