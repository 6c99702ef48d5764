"""What a GPU runs, on the CPU: overlapping steps and static buffers give the tokens of the plain path."""

import pytest
from support.checkpoints import save_checkpoint
from support.engine import build_core, run_outputs

from ondol.engine import model_runner, packing, sampler
from ondol.engine.messages import AddRequest
from ondol.engine.sampling_params import SamplingParams

# Prompts of many lengths, one of them a single token; answers end at different steps.
PARAMS = [
    {"temperature": 0.0, "max_tokens": 9},
    {"seed": 5, "max_tokens": 17},
    {"seed": -6, "top_k": 20, "top_p": 0.8, "max_tokens": 4},
    {"temperature": 0.0, "max_tokens": 12, "logprobs": 3},
    {"seed": 7, "frequency_penalty": 0.8, "repetition_penalty": 1.2, "max_tokens": 8},
    {"temperature": 0.0, "max_tokens": 3, "prompt_logprobs": 2},
    {"seed": 8, "min_tokens": 4, "max_tokens": 11, "logit_bias": ((17, 4.0),)},
    {"temperature": 0.0, "max_tokens": 1},
    {"seed": 9, "max_tokens": 15, "stop_token_ids": tuple(range(0, 512, 7))},
]
LENGTHS = [3, 18, 1, 9, 30, 7, 12, 5, 2]


@pytest.fixture(scope="module", params=["llama", "qwen2-sliding"])
def folder(request, tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp(request.param), request.param, num_hidden_layers=2)


def messages() -> list[AddRequest]:
    return [
        AddRequest(
            request_id=str(index),
            prompt_ids=[3 + (11 * index + 5 * place) % 500 for place in range(length)],
            params=SamplingParams(ignore_eos=True, **options),
        )
        for index, (length, options) in enumerate(zip(LENGTHS, PARAMS, strict=True))
    ]


def answers(core) -> dict[str, list[tuple[list[int], str | None]]]:
    """Tokens, how each request ended, and which tokens it was told log-probabilities of."""
    found = {}
    for name, outputs in run_outputs(core, messages()).items():
        assert [output.error for output in outputs] == [None] * len(outputs)
        tokens = [token for output in outputs for token in output.token_ids]
        told = [one.token_id for output in outputs for one in output.logprobs]
        prompts = [output.prompt_logprobs is not None for output in outputs]
        found[name] = (tokens, outputs[-1].finish_reason, told, any(prompts))
    return found


@pytest.mark.parametrize("bounds", [{}, {"num_blocks": 14, "max_num_batched_tokens": 16, "max_num_seqs": 5}])
@pytest.mark.parametrize(("overlaps", "uses_buffers"), [(True, False), (False, True), (True, True)])
def test_the_tokens_are_those_of_the_plain_path(folder, bounds, overlaps, uses_buffers):
    expected = answers(build_core(folder, **bounds))
    core = build_core(folder, overlaps=overlaps, uses_buffers=uses_buffers, **bounds)
    assert answers(core) == expected
    assert (core.stats().num_preemptions > 0) == bool(bounds)
    assert core.stats().num_used_blocks == 0


def test_a_steady_decode_step_sends_nothing_to_the_device(folder, monkeypatch):
    core = build_core(folder, overlaps=True, uses_buffers=True, block_size=16)
    for name in ("first", "second"):
        params = SamplingParams(max_tokens=30, seed=3, top_p=0.9, ignore_eos=True)
        core.add(AddRequest(request_id=name, prompt_ids=[5, 6, 7], params=params))
    for _ in range(3):
        core.step()
    sent: list[int] = []
    for module in (packing, sampler, model_runner):
        monkeypatch.setattr(module, "upload", lambda array, device: sent.append(array.nbytes))
    tokens = [token for _ in range(8) for output in core.step() for token in output.token_ids]
    assert len(tokens) == 16
    assert sent == []
