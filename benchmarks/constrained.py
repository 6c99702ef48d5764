"""What a grammar in the batch costs those who have none.

Plain requests and some that write JSON by a schema decode together, in one engine in this process. Turns of
a few steps with the grammars alternate with turns in which the same requests are left without: the batch,
the contexts and the model's work stay the same, so that the difference is the grammars': their masks and
their matchers. A pair of neighbouring turns, in random order, shares the noise of the machine; what is told
is the median over pairs, with the interval that 95 % of resampled medians fall into. Besides the time of a
step its processor time is compared, which other programs disturb less. Compilation is left out: it is in
threads, a millisecond a request. Prints progress on stderr and one JSON object as the last line on stdout;
the target is a slowdown of at most 5 %.
"""

import json
import os
import random
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ondol.bench.ceiling import read_config
from ondol.bench.provenance import load_average, model_record, provenance
from ondol.engine.channel import Channel
from ondol.engine.core import EngineCore
from ondol.engine.messages import AddRequest, EngineConfig
from ondol.engine.request import Request
from ondol.engine.sampling_params import SamplingParams
from ondol.errors import OndolError
from ondol.text.structured_output import json_schema_grammar
from ondol.text.tokenizer import TextTokenizer

TARGET_SLOWDOWN = 0.05
KV_CACHE_BYTES = 512 * 2**20
NUM_PROMPT_TOKENS, MAX_MODEL_LEN = 64, 1024
MIN_PAIRS, NUM_RESAMPLES = 3, 2_000
# Requests begin anew after so many tokens, for contexts of the length of short answers.
ANSWER_TOKENS = 256
# Steps overlap within a turn, and not from one turn to the next.
STEPS_WITH_OVERLAP, STEPS_WITHOUT = 16, 1
PROGRESS_INTERVAL_S = 10
# Longer than any answer here: a grammar that ended would end its request.
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
class Turn:
    """What a step took, on average over a turn."""

    wall_s: float
    processor_s: float


class Comparison:
    """Turns with and without grammars.

    Args:
        core: an engine without requests.
        vocab_size: of its model.
        flags: the command's options.
    """

    def __init__(self, core: EngineCore, vocab_size: int, flags: dict[str, Any]) -> None:
        self._core = core
        self._overlaps = core.overlaps
        self._vocab_size = vocab_size
        self._num_plain: int = flags["num_plain"]
        self._num_constrained: int = flags["num_constrained"]
        self._num_steps: int = flags["turn_steps"] or (STEPS_WITH_OVERLAP if core.overlaps else STEPS_WITHOUT)
        self._draw = random.Random(flags["seed"])
        self._grammar = json_schema_grammar(SCHEMA, strict=True)

    def pairs(self) -> Iterator[dict[bool, Turn]]:
        """Pairs of turns, by whether grammars were used, until the requests' answers are long enough."""
        requests = self._begin()
        constrained = [request for request in requests if request.matcher is not None]
        matchers = [request.matcher for request in constrained]
        while requests[0].num_output_tokens < ANSWER_TOKENS:
            turns = {}
            for uses_grammars in self._draw.sample((True, False), k=2):
                for request, matcher in zip(constrained, matchers, strict=True):
                    request.matcher = matcher if uses_grammars else None
                turns[uses_grammars] = self._turn()
            yield turns
        for request in requests:
            self._core.abort(request.request_id)

    def _begin(self) -> list[Request]:
        """Requests that all decode, with nothing in flight."""
        for index in range(self._num_plain + self._num_constrained):
            params = SamplingParams(
                max_tokens=MAX_MODEL_LEN - NUM_PROMPT_TOKENS,
                temperature=0.0,
                ignore_eos=True,
                grammar=self._grammar if index >= self._num_plain else None,
            )
            prompt_ids = self._draw.choices(range(self._vocab_size), k=NUM_PROMPT_TOKENS)
            self._core.add(AddRequest(request_id=str(index), prompt_ids=prompt_ids, params=params))
        self._core.overlaps = False
        running = self._core._scheduler.running
        while self._core.is_compiling or any(request.num_uncomputed_tokens > 1 for request in running):
            self._step()
        for request in running:
            # Left without its grammar for a turn, a request may choose an end token.
            request.end_token_ids = frozenset()
        # The first steps after a prefill fill caches that the later ones find.
        self._turn()
        return list(running)

    def _turn(self) -> Turn:
        """Steps that are launched ahead where the engine does so; the last one leaves nothing in flight."""
        started_s, processor_s = time.perf_counter(), time.process_time()
        for left in reversed(range(self._num_steps)):
            self._core.overlaps = self._overlaps and left > 0
            self._step()
        wall_s = time.perf_counter() - started_s
        return Turn(wall_s / self._num_steps, (time.process_time() - processor_s) / self._num_steps)

    def _step(self) -> None:
        for output in self._core.step():
            assert output.finish_reason is None, f"a request ended: {output.error or output.finish_reason}"


def load(folder: Path, flags: dict[str, Any]) -> EngineCore:
    """The engine as its own process would build it."""
    # As there, and for the same reason; torch must not have been imported before.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch  # noqa: PLC0415 - see above

    from ondol.engine import worker  # noqa: PLC0415 - likewise

    if flags["threads"] is not None:
        torch.set_num_threads(flags["threads"])
    config = EngineConfig(
        model_path=str(folder),
        device=flags["device"],
        max_num_batched_tokens=512,
        kv_cache_bytes=KV_CACHE_BYTES,
        max_model_len=MAX_MODEL_LEN,
        end_token_ids=TextTokenizer.load(folder).end_token_ids,
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        core, _ = worker.load_core(config, Channel(theirs))
    return core


def measure(folder: Path, flags: dict[str, Any]) -> list[dict[bool, Turn]]:
    """As many pairs of turns as there is time for."""
    comparison = Comparison(load(folder, flags), int(read_config(folder)["vocab_size"]), flags)
    started_s = told_s = time.monotonic()
    found: list[dict[bool, Turn]] = []
    while True:
        for pair in comparison.pairs():
            found.append(pair)
            now_s = time.monotonic()
            is_over = len(found) >= MIN_PAIRS and now_s - started_s >= flags["seconds"]
            if is_over or now_s - told_s >= PROGRESS_INTERVAL_S:
                told_s = now_s
                click.echo(f"{now_s - started_s:.0f} s: {len(found)} pairs, {_told(found)}", err=True)
            if is_over:
                return found


def summary_of(slowdowns: list[float]) -> dict[str, float]:
    """The median, and the interval of 95 % of the medians of pairs drawn anew from these (bootstrap)."""
    draw = random.Random(0)
    medians = sorted(
        statistics.median(draw.choices(slowdowns, k=len(slowdowns))) for _ in range(NUM_RESAMPLES)
    )
    lowest, highest = (medians[round(share * (NUM_RESAMPLES - 1))] for share in (0.025, 0.975))
    return {"median": statistics.median(slowdowns), "lowest": lowest, "highest": highest}


def summaries_of(pairs: list[dict[bool, Turn]]) -> dict[str, dict[str, float]]:
    """Of a step's time and of its processor time."""
    return {
        "slowdown": summary_of([pair[True].wall_s / pair[False].wall_s - 1 for pair in pairs]),
        "processor_slowdown": summary_of(
            [pair[True].processor_s / pair[False].processor_s - 1 for pair in pairs]
        ),
    }


def _told(pairs: list[dict[bool, Turn]]) -> str:
    return "; ".join(
        f"{name} {found['median']:+.2%} ({found['lowest']:+.2%} to {found['highest']:+.2%})"
        for name, found in summaries_of(pairs).items()
    )


@click.command()
@click.option("--model-folder", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(1))
@click.option("--num-plain", type=click.IntRange(0), default=12, show_default=True)
@click.option("--num-constrained", type=click.IntRange(1), default=4, show_default=True)
@click.option(
    "--turn-steps",
    type=click.IntRange(1, 64),
    help=f"Steps of a turn.  [default: {STEPS_WITHOUT}, or {STEPS_WITH_OVERLAP} where steps overlap]",
)
@click.option("--seconds", type=click.FloatRange(0), default=240.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(model_folder: Path, **flags: Any) -> None:  # noqa: ANN401 - click hands over what the options say
    """Measure how much grammars slow down the streams beside them."""
    origin = provenance(("torch", "llguidance"))
    pairs = measure(model_folder, flags)
    steps_ms = {
        name: 1e3 * statistics.median(pair[uses_grammars].wall_s for pair in pairs)
        for name, uses_grammars in (("with_grammars", True), ("without", False))
    }
    report = {
        **origin,
        "model_record": model_record(model_folder),
        "settings": flags,
        "num_pairs": len(pairs),
        "median_step_ms": steps_ms,
        **summaries_of(pairs),
        "target": TARGET_SLOWDOWN,
        "load_average_after": load_average(),
    }
    click.echo(f"at most {TARGET_SLOWDOWN:.0%} wanted", err=True)
    click.echo(json.dumps(report, ensure_ascii=False))


if __name__ == "__main__":
    try:
        main(standalone_mode=False)
        code = 0
    except (OndolError, click.ClickException) as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    sys.exit(code)
