"""Greedy output through HTTP equals transformers' generate(), token for token.

As `test_reference_tokens.py` says of the engine, here of the whole daemon: two real processes, the
OpenAI client, streamed and whole answers side by side.
"""

import asyncio
import random
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
import transformers
from support.checkpoints import VOCAB_SIZE, reference_model, reference_tokens
from support.daemon import IDLE, Daemon
from support.served_models import save_served_model

pytestmark = pytest.mark.anyio

MAX_TOKENS = 24
BLOCK_SIZE = 4
# Keys and values of 3 layers with 2 heads of 16 numbers in float32.
BLOCK_BYTES = BLOCK_SIZE * 2 * 3 * 2 * 16 * 4
EXACTLY = {"temperature": 0, "max_tokens": MAX_TOKENS}
EXTENSIONS = {"ignore_eos": True, "return_token_ids": True}
QUESTIONS = (
    "Give me a short introduction to large language models.",
    "대한민국의 수도는 어디인가요?",
    "Write a haiku about a warm floor in winter. 😀",
    "What is 17 times 3?",
)
# A tokenizer of 512 pieces makes many tokens of few words.
SHORT_QUESTIONS = ("온돌?", "The quick brown fox", "😀")
# Room for one of the longest requests and little more, and chunks of a few tokens.
CRAMPED = (
    *("--no-enable-prefix-caching", "--block-size", str(BLOCK_SIZE), "--max-model-len", "100"),
    *("--kv-cache-memory", str(26 * BLOCK_BYTES), "--max-num-batched-tokens", "8", "--max-num-seqs", "8"),
)


def mixed_prompts() -> list[list[int]]:
    """Lengths from 1 to 70, two of them with a long common beginning."""
    source = random.Random(0)
    prompts = [
        [source.randrange(3, VOCAB_SIZE) for _ in range(length)] for length in (3, 17, 40, 9, 70, 1, 33)
    ]
    return [*prompts, [*prompts[2][:30], 5, 6, 7]]


@dataclass(frozen=True)
class Family:
    """One checkpoint, what transformers makes of the prompts, and two daemons that serve it."""

    expected: list[list[int]]
    expected_chats: list[tuple[str, list[int]]]
    with_prefix_cache: Daemon
    cramped: Daemon


# Each family is two daemons. The engine's tests compare every family each time; here some are slow proofs.
OTHERS = ("mistral", "llama-3-rope", "qwen2")
FAMILIES = ["llama", "qwen2_moe", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    folder = save_served_model(tmp_path_factory.mktemp("models") / "tiny", request.param)
    with ExitStack() as daemons:
        # Both load while transformers computes.
        with_prefix_cache = daemons.enter_context(Daemon(str(folder)))
        cramped = daemons.enter_context(Daemon(str(folder), *CRAMPED))
        reference = reference_model(folder)
        expected = [reference_tokens(reference, prompt, MAX_TOKENS) for prompt in mixed_prompts()]
        chats = [reference_chat(folder, reference, question) for question in SHORT_QUESTIONS]
        yield Family(expected, chats, with_prefix_cache.wait_until_serving(), cramped.wait_until_serving())


def new_token_ids(chunk):
    """The ids behind one chunk; a chunk that only opens or ends a choice has none."""
    return getattr(chunk.choices[0], "token_ids", None) or []


async def complete(client, prompt, *, stream):
    """The token ids of a completion, streamed or whole."""
    options = {"model": "tiny", "prompt": prompt, **EXACTLY, "extra_body": EXTENSIONS}
    if not stream:
        answer = await client.completions.create(**options)
        assert answer.usage.completion_tokens == MAX_TOKENS
        return answer.choices[0].token_ids
    chunks = [chunk async for chunk in await client.completions.create(**options, stream=True)]
    assert chunks[-1].choices[0].finish_reason == "length"
    return [token_id for chunk in chunks for token_id in new_token_ids(chunk)]


async def complete_together(daemon):
    """Every prompt at once; every other one is streamed."""
    async with daemon.async_openai() as client:
        return await asyncio.gather(
            *(complete(client, prompt, stream=index % 2 == 0) for index, prompt in enumerate(mixed_prompts()))
        )


async def complete_one_by_one(daemon):
    async with daemon.async_openai() as client:
        return [
            await complete(client, prompt, stream=index % 2 == 1)
            for index, prompt in enumerate(mixed_prompts())
        ]


async def chat_together(client, questions, options):
    """Every question at once; every other answer is streamed."""
    return await asyncio.gather(
        *(chat(client, question, options, stream=index % 2 == 0) for index, question in enumerate(questions))
    )


async def chat(client, question, options, *, stream):
    """(text, token ids) of a chat answer, streamed or whole."""
    messages = [{"role": "user", "content": question}]
    if not stream:
        (choice,) = (await client.chat.completions.create(messages=messages, **options)).choices
        return choice.message.content, choice.token_ids
    text, token_ids = "", []
    async for chunk in await client.chat.completions.create(messages=messages, **options, stream=True):
        (choice,) = chunk.choices
        text += choice.delta.content or ""
        token_ids += new_token_ids(chunk)
    return text, token_ids


def reference_chat(folder, model, question, *, max_tokens=MAX_TOKENS, ends_itself=False):
    """The same by transformers alone: its template, its generate(), its decode."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": question}]
    prompt_ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    token_ids = reference_tokens(model, prompt_ids, max_tokens)
    if ends_itself and tokenizer.eos_token_id in token_ids:
        token_ids = token_ids[: token_ids.index(tokenizer.eos_token_id) + 1]
    return tokenizer.decode(token_ids, skip_special_tokens=True), token_ids


async def test_prompts_run_together_and_again_from_the_prefix_cache(family):
    daemon = family.with_prefix_cache
    assert await complete_together(daemon) == family.expected
    num_hits = daemon.metrics()["ondol_prefix_cache_hit_tokens_total"]
    assert await complete_together(daemon) == family.expected
    assert await complete_one_by_one(daemon) == family.expected
    metrics = daemon.wait_for_metrics(IDLE)
    assert metrics["ondol_prefix_cache_hit_tokens_total"] > num_hits + 200


async def test_tiny_chunks_and_forced_preemption_without_the_prefix_cache(family):
    daemon = family.cramped
    assert await complete_one_by_one(daemon) == family.expected
    assert daemon.metrics()["ondol_preemptions_total"] == 0
    assert await complete_together(daemon) == family.expected
    metrics = daemon.wait_for_metrics(IDLE)
    assert metrics["ondol_preemptions_total"] > 0
    assert metrics["ondol_prefix_cache_hit_tokens_total"] == 0


async def test_chats_are_the_templates_prompt_continued(family):
    options = {"model": "tiny", **EXACTLY, "extra_body": EXTENSIONS}
    for daemon in (family.with_prefix_cache, family.cramped):
        async with daemon.async_openai() as client:
            assert await chat_together(client, SHORT_QUESTIONS, options) == family.expected_chats


@pytest.mark.slow  # transformers computes for half a minute
async def test_chats_with_the_starter_model_run_together_and_one_by_one(starter_daemon, starter_folder):
    model = reference_model(starter_folder)
    expected = [
        reference_chat(starter_folder, model, question, max_tokens=32, ends_itself=True)
        for question in QUESTIONS
    ]
    options = {"model": "starter", "temperature": 0, "max_tokens": 32}
    options["extra_body"] = {"return_token_ids": True}
    async with starter_daemon.async_openai() as client:
        together = await chat_together(client, QUESTIONS, options)
        one_by_one = [
            await chat(client, question, options, stream=index % 2 == 1)
            for index, question in enumerate(QUESTIONS)
        ]
    assert together == expected
    assert one_by_one == expected
