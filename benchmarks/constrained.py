"""What a grammar in the batch costs those who have none.

Plain streams run beside companions that come in short turns: plain ones, ones that write JSON by a schema,
and so on. Companions compute the same number of tokens in both, so that the difference is the grammar's:
its masks and its matchers. Neighbouring turns share the noise of the machine, and turns of four (plain,
JSON, JSON, plain) also a context that grows; each such round gives one slowdown, and the rounds their
median with the interval that 95 % of resampled medians fall into. Besides the time of a step its processor
time is compared, which other programs disturb less. Linux only. Prints rounds on stderr and one JSON object
as the last line on stdout; the target is a slowdown of at most 5 %.
"""

import asyncio
import json
import random
import statistics
import sys
import time
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from ondol.bench.ceiling import read_config
from ondol.bench.provenance import load_average, model_record, provenance
from ondol.engine.client import EngineClient
from ondol.engine.messages import EngineConfig
from ondol.engine.sampling_params import SamplingParams
from ondol.errors import OndolError
from ondol.text.structured_output import json_schema_grammar
from ondol.text.tokenizer import TextTokenizer

TARGET_SLOWDOWN = 0.05
KV_CACHE_BYTES = 512 * 2**20
NUM_PROMPT_TOKENS, MAX_MODEL_LEN = 64, 1024
MIN_ROUNDS = 3
NUM_RESAMPLES = 10_000
# Longer than any turn, so that a companion writes as many tokens as a plain one.
SCHEMA = {
    "type": "array",
    "minItems": 10_000,
    "items": {
        "type": "object",
        "properties": {
            "이름": {"type": "string", "maxLength": 40},
            "kind": {"enum": ["person", "place", "thing"]},
            "score": {"type": "number"},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 4},
        },
        "required": ["이름", "kind", "score", "tags"],
        "additionalProperties": False,
    },
}


@dataclass(frozen=True, slots=True)
class Step:
    """What a step of all streams took, on average over turns.

    Attributes:
        wall_s: time between two tokens of a plain stream.
        processor_s: of all threads of the engine.
    """

    wall_s: float
    processor_s: float


class Stream:
    """One request, and when its tokens came."""

    def __init__(self, engine: EngineClient, prompt_ids: list[int], params: SamplingParams) -> None:
        self._engine = engine
        self._prompt_ids = prompt_ids
        self._params = params
        self.arrivals_s: list[float] = []
        self.has_begun = asyncio.Event()

    async def run(self) -> None:
        """Read it to its end."""
        async with aclosing(self._engine.generate(self._prompt_ids, self._params)) as outputs:
            async for output in outputs:
                self.arrivals_s += [time.perf_counter()] * len(output.token_ids)
                self.has_begun.set()
        assert len(self.arrivals_s) == self._params.max_tokens, "both kinds of companion do the same work"


class Comparison:
    """Turns of plain streams beside either kind of companion, on one engine."""

    def __init__(self, engine: EngineClient, vocab_size: int, flags: dict[str, Any]) -> None:
        self._engine = engine
        self._vocab_size = vocab_size
        self._num_plain: int = flags["num_plain"]
        self._num_companions: int = flags["num_constrained"]
        max_tokens = MAX_MODEL_LEN - NUM_PROMPT_TOKENS
        self._plain = SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
        self._companion = msgspec.structs.replace(self._plain, max_tokens=flags["turn_tokens"])
        grammar = json_schema_grammar(SCHEMA, strict=True)
        self._constrained = msgspec.structs.replace(self._companion, grammar=grammar)

    async def warm_up(self) -> None:
        """Has the engine read its tokenizer, which the first grammar waits for."""
        await self._stream("warm-up", self._constrained).run()

    async def round(self, key: str, turns: tuple[bool, ...]) -> dict[bool, Step]:
        """What a step took beside either kind of companion; `turns` says which are constrained."""
        found: dict[bool, list[Step]] = {False: [], True: []}
        async with asyncio.TaskGroup() as group:
            plain = [self._stream(f"{key}/plain {index}", self._plain) for index in range(self._num_plain)]
            tasks = [group.create_task(stream.run()) for stream in plain]
            await asyncio.gather(*(stream.has_begun.wait() for stream in plain))
            for number, is_constrained in enumerate(turns):
                found[is_constrained].append(await self._turn(f"{key}/{number}", plain, is_constrained))
            assert not any(task.done() for task in tasks), "plain streams outlast their companions"
            for task in tasks:
                task.cancel()
        return {kind: _mean(steps) for kind, steps in found.items()}

    async def _turn(self, key: str, plain: list[Stream], is_constrained: bool) -> Step:
        """From the moment when all companions decode until the first of them ends."""
        params = self._constrained if is_constrained else self._companion
        streams = [self._stream(f"{key}/{index}", params) for index in range(self._num_companions)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(stream.run()) for stream in streams]
            await asyncio.gather(*(stream.has_begun.wait() for stream in streams))
            first = [len(stream.arrivals_s) - 1 for stream in plain]
            before_s = self._processor_s()
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            processor_s = self._processor_s() - before_s
            last = [len(stream.arrivals_s) - 1 for stream in plain]
        num_steps = statistics.median(map(int.__sub__, last, first))
        wall_s = statistics.median(
            (stream.arrivals_s[end] - stream.arrivals_s[begin]) / (end - begin)
            for stream, begin, end in zip(plain, first, last, strict=True)
        )
        return Step(wall_s, processor_s / num_steps)

    def _stream(self, key: str, params: SamplingParams) -> Stream:
        prompt_ids = random.Random(key).choices(range(self._vocab_size), k=NUM_PROMPT_TOKENS)
        return Stream(self._engine, prompt_ids, params)

    def _processor_s(self) -> float:
        """Of the engine's threads so far; Linux counts them in nanoseconds (Documentation/scheduler)."""
        tasks = Path(f"/proc/{self._engine.process_id}/task").glob("*/schedstat")
        return sum(int(task.read_text(encoding="utf-8").split()[0]) for task in tasks) / 1e9


def _mean(steps: list[Step]) -> Step:
    return Step(
        statistics.fmean(step.wall_s for step in steps), statistics.fmean(step.processor_s for step in steps)
    )


def summary_of(slowdowns: list[float]) -> dict[str, float]:
    """The median, and the interval of 95 % of the medians of rounds drawn anew from these (bootstrap)."""
    draw = random.Random(0)
    medians = sorted(
        statistics.median(draw.choices(slowdowns, k=len(slowdowns))) for _ in range(NUM_RESAMPLES)
    )
    lowest, highest = (medians[round(share * (NUM_RESAMPLES - 1))] for share in (0.025, 0.975))
    return {"median": statistics.median(slowdowns), "lowest": lowest, "highest": highest}


async def compare(folder: Path, flags: dict[str, Any]) -> list[dict[str, Any]]:
    """One entry per round; begins none that would probably end after the time that there is."""
    config = EngineConfig(
        model_path=str(folder),
        device=flags["device"],
        max_num_batched_tokens=512,
        kv_cache_bytes=KV_CACHE_BYTES,
        max_model_len=MAX_MODEL_LEN,
        end_token_ids=TextTokenizer.load(folder).end_token_ids,
        num_threads=flags["threads"],
    )
    engine = await EngineClient.start(config, max_queue_size=0)
    try:
        comparison = Comparison(engine, int(read_config(folder)["vocab_size"]), flags)
        await comparison.warm_up()
        rounds: list[dict[str, Any]] = []
        started = time.monotonic()
        longest_s = 0.0
        while len(rounds) < MIN_ROUNDS or time.monotonic() - started + longest_s < flags["seconds"]:
            begun = time.monotonic()
            turns = (True, False, False, True) if len(rounds) % 2 else (False, True, True, False)
            steps = await comparison.round(f"{flags['seed']}/{len(rounds)}", turns)
            longest_s = max(longest_s, time.monotonic() - begun)
            rounds.append(_entry(steps[False], steps[True]))
            _say(len(rounds), rounds[-1], time.monotonic() - started)
        return rounds
    finally:
        await engine.close()


def _entry(plain: Step, constrained: Step) -> dict[str, Any]:
    return {
        "beside_plain": asdict(plain),
        "beside_constrained": asdict(constrained),
        "slowdown": constrained.wall_s / plain.wall_s - 1,
        "processor_slowdown": constrained.processor_s / plain.processor_s - 1,
    }


def _say(number: int, entry: dict[str, Any], elapsed_s: float) -> None:
    plain, constrained = entry["beside_plain"], entry["beside_constrained"]
    columns = (
        f"{name} {1e3 * plain[key]:.1f} ms beside plain companions, {1e3 * constrained[key]:.1f} beside "
        f"constrained ones ({entry[slowdown]:+.1%})"
        for name, key, slowdown in (
            ("a step", "wall_s", "slowdown"),
            ("its processor time", "processor_s", "processor_slowdown"),
        )
    )
    click.echo(f"round {number}, {elapsed_s:.0f} s: " + "; ".join(columns), err=True)


@click.command()
@click.option("--model-folder", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(1))
@click.option("--num-plain", type=click.IntRange(1), default=12, show_default=True)
@click.option("--num-constrained", type=click.IntRange(1), default=4, show_default=True)
@click.option("--turn-tokens", type=click.IntRange(3, 128), default=16, show_default=True)
@click.option("--seconds", type=click.FloatRange(0), default=300.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(model_folder: Path, **flags: Any) -> None:  # noqa: ANN401 - click hands over what the options say
    """Measure how much grammars slow down the streams beside them."""
    origin = provenance(("torch", "llguidance"))
    rounds = asyncio.run(compare(model_folder, flags))
    summaries = {
        name: summary_of([entry[name] for entry in rounds]) for name in ("slowdown", "processor_slowdown")
    }
    report = {
        **origin,
        "model_record": model_record(model_folder),
        "settings": flags,
        "rounds": rounds,
        **summaries,
        "target": TARGET_SLOWDOWN,
        "load_average_after": load_average(),
    }
    for name, found in summaries.items():
        click.echo(
            f"{name}: median {found['median']:+.1%}, 95 % interval {found['lowest']:+.1%} to "
            f"{found['highest']:+.1%}; at most {TARGET_SLOWDOWN:.0%} wanted",
            err=True,
        )
    click.echo(json.dumps(report, ensure_ascii=False))


if __name__ == "__main__":
    try:
        main(standalone_mode=False)
        code = 0
    except (OndolError, click.ClickException) as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    sys.exit(code)
