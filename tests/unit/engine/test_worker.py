import queue

import pytest
from support.checkpoints import save_checkpoint

from ondol.engine import worker
from ondol.engine.messages import EngineConfig, QuantizationConfig
from ondol.errors import ModelRefused


class SilentChannel:
    """A channel on which nothing arrives; keeps what is sent."""

    def __init__(self):
        self.received = queue.SimpleQueue()
        self.sent = []

    def send(self, message):
        self.sent.append(message)


@pytest.mark.parametrize("method", ["none", "auto"])
def test_a_model_that_cannot_be_deterministic_is_refused_before_anything_is_planned(tmp_path, method):
    folder = save_checkpoint(tmp_path, "qwen3")
    channel = SilentChannel()
    config = EngineConfig(
        model_path=str(folder),
        device="cpu",
        deterministic=True,
        wants_plan=True,
        quantization=QuantizationConfig(method=method),
        # Nothing fits into it: a plan would refuse it for that.
        memory_bytes=1,
    )
    with pytest.raises(ModelRefused, match="qwen3 cannot be computed deterministically"):
        worker.load_core(config, channel)
    assert channel.sent == []
