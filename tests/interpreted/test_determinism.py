"""The engine over Triton's deterministic kernels: the same bits alone, beside others, in chunks, resumed."""

import pytest
from support.checkpoints import save_checkpoint
from support.engine import build_core, run_outputs

from ondol.engine.messages import AddRequest
from ondol.engine.sampling_params import SamplingParams
from ondol.kernels.triton.backend import DETERMINISTIC
from ondol.modeling.quantization.on_load import OnLoad

PROMPT = [5, 6, 7, 8, 9]
PARAMS = SamplingParams(max_tokens=2, temperature=0.8, seed=7, ignore_eos=True, logprobs=2)


def answer(core, prompt_ids=PROMPT, output_ids=(), others=()):
    """Ids and log-probabilities that a request gets beside requests with other prompts."""
    mine = AddRequest(request_id="mine", prompt_ids=prompt_ids, params=PARAMS, output_ids=list(output_ids))
    beside = [
        AddRequest(request_id=str(index), prompt_ids=ids, params=PARAMS) for index, ids in enumerate(others)
    ]
    outputs = run_outputs(core, [*beside, mine])["mine"]
    assert all(output.error is None for output in outputs)
    return [(output.token_ids, output.logprobs) for output in outputs]


def check(folder, **options):
    def build(num_batched_tokens):
        return build_core(
            folder, kernels=DETERMINISTIC, max_num_batched_tokens=num_batched_tokens, num_blocks=32, **options
        )

    expected = answer(build(64))
    assert answer(build(3), others=[[40, 41]]) == expected
    known = expected[0][0]
    assert answer(build(64), output_ids=known) == expected[1:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "method"), [("llama", None), ("qwen2-sliding", "nf4"), ("qwen2_moe", "int8")]
)
def test_a_tiny_model_gives_the_same_bits(tmp_path, family, method):
    """Half a minute and more: every program of every kernel of every step is interpreted."""
    sparse = {"num_experts": 4, "num_experts_per_tok": 2} if family == "qwen2_moe" else {}
    folder = save_checkpoint(tmp_path, family, num_hidden_layers=1, **sparse)
    check(folder, on_load=None if method is None else OnLoad(method))
