import json

import pytest
import torch
from support.checkpoints import save_checkpoint
from support.float_packers import BitsAndBytes4Bit, BitsAndBytes8Bit, BlockFP8
from support.header_files import hollow
from support.packers import AWQ, GPTQ, PackQuantized, pack_checkpoint

from ondol.inspection.header_checkpoint import HeaderCheckpoint
from ondol.modeling.checkpoint import Checkpoint
from ondol.modeling.loading import draw_model, load_model

CPU = torch.device("cpu")
FORMATS = {
    "gptq": GPTQ(group_size=32),
    "gptq-row": GPTQ(group_size=-1, sym=False),
    "gptq-desc_act": GPTQ(group_size=32, order="shared"),
    "gptq-8bit": GPTQ(bits=8, group_size=32),
    "gptq-zero-biases": GPTQ(group_size=32, zero_biases=True),
    "awq": AWQ(),
    "pack": PackQuantized(),
    "pack-actorder": PackQuantized(order="shared"),
    "fp8": BlockFP8(),
    "bnb-nf4": BitsAndBytes4Bit(),
    "bnb-nf4-double": BitsAndBytes4Bit(double=True),
    "bnb-fp4-bfloat16-storage": BitsAndBytes4Bit("fp4", storage=torch.bfloat16),
    "bnb-fp4-blocks-of-32": BitsAndBytes4Bit("fp4", block_size=32),
    "bnb-8bit": BitsAndBytes8Bit(),
}


def parameter_shapes(model):
    return {
        f"{path}.{name}": (tuple(parameter.shape), parameter.dtype)
        for path, module in model.named_modules()
        for name, parameter in module.named_parameters(recurse=False)
    }


@pytest.mark.parametrize("name", FORMATS)
def test_headers_alone_draw_the_model_that_a_load_makes(tmp_path, name):
    packed, _ = pack_checkpoint(tmp_path, "qwen2_moe", FORMATS[name])
    folder = hollow(packed, tmp_path / "hollow")
    drawn = draw_model(folder, CPU, "bfloat16", checkpoint=HeaderCheckpoint(folder)).model
    assert parameter_shapes(drawn) == parameter_shapes(load_model(packed, CPU, "bfloat16").model)


def test_contents_of_weights_are_not_made_up(tmp_path):
    packed, _ = pack_checkpoint(tmp_path, "llama", GPTQ(group_size=32))
    checkpoint = HeaderCheckpoint(hollow(packed, tmp_path / "hollow"))
    name = next(name for name in checkpoint.names if name.endswith("qweight"))
    assert not checkpoint.tensor(name).any()
    assert checkpoint.shape_of(name) == Checkpoint(packed).shape_of(name)


def test_a_folder_in_full_precision_needs_no_contents(tmp_path):
    folder = hollow(save_checkpoint(tmp_path / "full", "llama"), tmp_path / "hollow")
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"
    assert HeaderCheckpoint(folder).names == Checkpoint(tmp_path / "full").names
