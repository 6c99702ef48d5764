"""Layers in host memory compute what they compute on the device.

What a GPU does at its own pace is played by `LateCopies`, which copies as late as it is allowed to.
"""

import pytest
import torch
from support.checkpoints import save_checkpoint
from support.forward import prompt_logits
from support.packers import GPTQ, pack_checkpoint
from torch import nn

from ondol.errors import ModelRefused
from ondol.modeling import loading
from ondol.modeling.loading import draw_model, load_model
from ondol.modeling.offload_plan import stored_bytes
from ondol.modeling.offloaded_layers import OffloadedLayers
from ondol.modeling.quantization.on_load import OnLoad

CPU = torch.device("cpu")
PROMPTS = [[5, 6, 7, 8, 300], list(range(40, 58))]


class LateCopies:
    """Copies when somebody waits, no sooner; counts."""

    def __init__(self):
        self.pending = {}
        self.num_copies = 0

    def start(self, buffer, target, source):
        target.random_(0, 255)  # half-written, for all that anybody may assume
        self.pending[buffer] = (target, source)
        self.num_copies += 1

    def wait(self, buffer):
        if buffer in self.pending:
            target, source = self.pending.pop(buffer)
            target.copy_(source)


class Scale(nn.Module):
    """A layer that multiplies by its one weight, and fails for a negative product."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3), requires_grad=False)

    def forward(self, hidden):
        product = hidden * self.weight
        if bool((product < 0).any()):
            raise ValueError("negative")
        return product


def scales(*factors, copies=None):
    with torch.device("meta"):
        layers = [Scale() for _ in factors]
    offloaded = OffloadedLayers(layers, CPU)
    for layer, factor in zip(layers, factors, strict=True):
        layer.weight.fill_(factor)
    offloaded.start(copies)
    return layers


def run(layers, value):
    hidden = torch.full((3,), float(value))
    for layer in layers:
        hidden = layer(hidden)
    return hidden.tolist()


@pytest.mark.parametrize("count", [3, 4, 5])
def test_every_step_computes_with_every_layers_own_weights(count):
    copies = LateCopies()
    layers = scales(*range(2, 2 + count), copies=copies)
    product = torch.tensor(range(2, 2 + count)).prod().item()
    for value in (1, 2, 3):
        assert run(layers, value) == [value * product] * 3
    # A buffer that has but one layer keeps it.
    assert copies.num_copies <= 3 * count + 2


def test_the_next_layer_of_a_buffer_is_on_its_way_before_it_is_needed():
    copies = LateCopies()
    layers = scales(2, 3, 4, 5, copies=copies)
    run(layers, 1)
    assert sorted(copies.pending) == [0, 1]


def test_a_step_after_one_that_failed_computes_with_the_right_weights():
    layers = scales(2, -1, 3, 4, copies=LateCopies())
    with pytest.raises(ValueError, match="negative"):
        run(layers, 1)
    assert run(layers, -0.0) == [0.0] * 3
    with pytest.raises(ValueError, match="negative"):
        run(layers[1:], 1)
    assert run(layers[2:], 1) == [12.0] * 3


def test_parameters_stay_where_they_are_from_step_to_step():
    layers = scales(2, 3, 4, 5)
    addresses = [layer.weight.data_ptr() for layer in layers]
    assert addresses[0] == addresses[2] != addresses[1] == addresses[3]
    run(layers, 1)
    assert [layer.weight.data_ptr() for layer in layers] == addresses


def offload_limit(folder, count, on_load=None):
    """Host memory for `count` of the layers, which differ in size where some are sparse."""
    sizes = [
        stored_bytes(layer) for layer in draw_model(folder, CPU, "float32", on_load).model.decoder_layers()
    ]
    return count * max(sizes)


@pytest.mark.parametrize(
    ("family", "on_load"),
    [
        ("llama", None),
        ("qwen2", OnLoad("int8")),
        ("qwen2_moe-mixed", None),
        ("qwen2_moe-mixed", OnLoad("nf4", use_double_quant=True)),
        ("qwen3", OnLoad("nf4")),
    ],
    ids=str,
)
def test_logits_are_those_of_a_model_that_is_all_on_the_device(tmp_path, monkeypatch, family, on_load):
    monkeypatch.setattr("ondol.modeling.offloaded_layers.ImmediateCopies", LateCopies)
    folder = save_checkpoint(tmp_path, family, num_hidden_layers=5)
    whole = load_model(folder, CPU, "float32", on_load=on_load)
    limit = offload_limit(folder, 4, on_load)
    offloaded = load_model(folder, CPU, "float32", on_load=on_load, offload_bytes=limit)
    assert "layers stay in host memory" in offloaded.notes[-1]
    expected = prompt_logits(whole, PROMPTS)
    for _ in range(2):
        for ours, reference in zip(prompt_logits(offloaded, PROMPTS), expected, strict=True):
            assert torch.equal(ours, reference)
    assert offloaded.report == whole.report


def test_weights_of_a_quantized_checkpoint_can_stay_in_host_memory(tmp_path):
    packed, _ = pack_checkpoint(tmp_path, "qwen2_moe", GPTQ(group_size=32, order="shared"))
    whole = load_model(packed, CPU, "float32")
    offloaded = load_model(packed, CPU, "float32", offload_bytes=offload_limit(packed, 3))
    assert "3 of 3 layers" in offloaded.notes[-1]
    expected = prompt_logits(whole, PROMPTS)
    for ours, reference in zip(prompt_logits(offloaded, PROMPTS), expected, strict=True):
        assert torch.equal(ours, reference)


def test_an_offloaded_model_is_never_captured_and_takes_memory_for_its_buffers(tmp_path):
    folder = save_checkpoint(tmp_path, "llama", num_hidden_layers=5)
    whole = load_model(folder, CPU, "float32")
    limit = offload_limit(folder, 4)
    offloaded = load_model(folder, CPU, "float32", offload_bytes=limit)
    assert (whole.model.can_be_captured, offloaded.model.can_be_captured) == (True, False)
    # On a CPU both copies lie in the same memory.
    assert offloaded.weights_bytes == whole.weights_bytes + limit // 2
    assert (whole.host_weights_bytes, offloaded.host_weights_bytes) == (0, 0)


def test_layers_that_share_weights_cannot_be_told_apart(tmp_path):
    folder = save_checkpoint(tmp_path, "qwen3")
    model = draw_model(folder, CPU, "float32").model
    assert len(model.decoder_layers()) == 3
    layers = model.network.model.layers
    layers[1].input_layernorm = layers[0].input_layernorm
    assert model.decoder_layers() == ()
    with pytest.raises(ModelRefused, match="tell apart"):
        loading.plan_offload(model.decoder_layers(), 1)
