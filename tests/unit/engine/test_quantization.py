import pytest
import torch
from support.checkpoints import save_checkpoint

from ondol.engine.messages import EngineConfig, QuantizationConfig
from ondol.engine.quantization import choose_within, plan_on_load
from ondol.errors import DoesNotFit
from ondol.modeling.quantization.on_load import OnLoad

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("llama"), "llama")


def config_for(folder, **quantization):
    return EngineConfig(
        model_path=str(folder), dtype="float32", quantization=QuantizationConfig(**quantization)
    )


def test_none_quantizes_nothing(folder):
    assert plan_on_load(config_for(folder), CPU) == (None, ())


@pytest.mark.parametrize("method", ["int8", "nf4", "fp4"])
def test_a_method_and_its_settings_are_taken_as_asked(folder, method):
    config = config_for(
        folder,
        method=method,
        compute_dtype="bfloat16",
        use_double_quant=True,
        quant_storage="float16",
        skip_modules=("o_proj",),
        quantize_lm_head=True,
    )
    expected = OnLoad(
        method,
        compute_dtype=torch.bfloat16,
        use_double_quant=True,
        skip_modules=("o_proj",),
        quantize_head=True,
        storage_dtype=torch.float16,
    )
    assert plan_on_load(config, CPU) == (expected, ())


def test_auto_compute_dtype_is_the_models(folder):
    on_load, _ = plan_on_load(config_for(folder, method="nf4"), CPU)
    assert on_load is not None
    assert on_load.compute_dtype is None


def test_auto_says_what_it_chose_and_why(folder):
    on_load, (note,) = plan_on_load(config_for(folder, method="auto"), CPU)
    assert on_load is None  # a tiny model fits any machine as it is
    assert note.startswith("--quantization auto chose none: it needs ")
    assert "MiB are free" in note


def test_auto_with_too_little_memory_does_not_fit(folder):
    with pytest.raises(DoesNotFit, match="Not even nf4 with double quantization fits"):
        choose_within(config_for(folder, method="auto"), CPU, 1000)
