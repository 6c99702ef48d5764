"""What `ondol fit` says is what a real engine process takes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoints import save_checkpoint

from ondol.engine.client import EngineClient
from ondol.engine.messages import EngineConfig, QuantizationConfig
from ondol.engine.sampling_params import SamplingParams
from ondol.engine.warm_up import MAX_TOKENS
from ondol.inspection.fit import Question, measure_fit
from ondol.inspection.machine import this_machine
from ondol.inspection.outline import open_outline

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CONTEXT = 512
NUM_REQUESTS = 4
NUM_ANSWER_TOKENS = 4
POLL_INTERVAL_S = 0.05


def anonymous_bytes(process_id: int) -> int:
    """Resident memory that no file backs: mapped libraries and weights do not count."""
    for line in Path(f"/proc/{process_id}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("this kernel does not tell RssAnon")


def config_of(folder: Path, context: int, kv_cache_bytes: int, **settings: Any) -> EngineConfig:
    return EngineConfig(
        model_path=str(folder),
        device="cpu",
        max_model_len=context,
        max_num_seqs=NUM_REQUESTS,
        max_num_batched_tokens=MAX_TOKENS["cpu"],
        kv_cache_bytes=kv_cache_bytes,
        enable_prefix_caching=False,
        **settings,
    )


async def peak_while_serving(config: EngineConfig) -> int:
    """The largest anonymous memory of an engine process that answers `NUM_REQUESTS` at full length."""
    client = await EngineClient.spawn()
    await client.load(config, max_queue_size=NUM_REQUESTS)
    peak_bytes = 0

    async def watch() -> None:
        nonlocal peak_bytes
        while True:
            peak_bytes = max(peak_bytes, anonymous_bytes(client.process_id))
            await asyncio.sleep(POLL_INTERVAL_S)

    async def ask(number: int) -> None:
        num_prompt_tokens = config.max_model_len - NUM_ANSWER_TOKENS
        prompt_ids = [3 + (7 * number + index) % 250 for index in range(num_prompt_tokens)]
        params = SamplingParams(max_tokens=NUM_ANSWER_TOKENS, temperature=0.0, ignore_eos=True)
        async for _ in client.generate(prompt_ids, params):
            pass

    watcher = asyncio.create_task(watch())
    await asyncio.gather(*(ask(number) for number in range(NUM_REQUESTS)))
    watcher.cancel()
    # A model that is next to nothing answers between two looks.
    peak_bytes = max(peak_bytes, anonymous_bytes(client.process_id))
    await client.close()
    return peak_bytes


@pytest.fixture(scope="module")
def empty_engine_bytes(tmp_path_factory):
    """An engine whose model is next to nothing: what its libraries and threads take."""
    folder = save_checkpoint(tmp_path_factory.mktemp("empty") / "tiny", "llama")
    return asyncio.run(peak_while_serving(config_of(folder, 64, 4 * 64 * 768)))


@pytest.mark.parametrize(
    ("form", "quantization", "deterministic"),
    [("fp32", "none", False), ("int8", "int8", False), ("nf4", "nf4", False), ("fp32", "none", True)],
    ids=["fp32", "int8", "nf4", "deterministic"],
)
def test_all_in_all_fit_is_within_a_tenth_of_the_starter_in_memory(
    starter_folder, empty_engine_bytes, tmp_path, form, quantization, deterministic
):
    """Slow: starts engine processes and has the starter read two thousand tokens in each form."""
    with open_outline(str(starter_folder), tmp_path) as outline:
        question = Question(context=CONTEXT, concurrency=NUM_REQUESTS, is_deterministic=deterministic)
        report = measure_fit(outline, this_machine(torch.device("cpu")), question)
    (said,) = [fit for fit in report.forms if fit.form == form]
    settings = {"quantization": QuantizationConfig(method=quantization), "deterministic": deterministic}
    config = config_of(starter_folder, CONTEXT, said.kv_cache_bytes, **settings)
    measured_bytes = asyncio.run(peak_while_serving(config)) - empty_engine_bytes
    assert said.total_bytes == pytest.approx(measured_bytes, rel=0.1)
