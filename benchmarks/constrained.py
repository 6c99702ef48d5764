"""What a grammar in the batch costs those who have none.

Two runs at a time, in changing order: the same plain streams beside companions that are plain, and beside
companions that write JSON by a schema. Companions compute the same number of tokens in both, so that the
difference is the grammar's: its masks, its matchers and its compilation. Prints a table on stderr and one
JSON object as the last line on stdout; the target is a slowdown of at most 5 %.
"""

import asyncio
import json
import random
import statistics
import sys
import time
from contextlib import aclosing
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
# Longer than any run, so that a companion writes as many tokens as a plain one.
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


class Comparison:
    """Runs of plain streams beside either kind of companion, on one engine."""

    def __init__(self, engine: EngineClient, vocab_size: int, flags: dict[str, Any]) -> None:
        self._engine = engine
        self._vocab_size = vocab_size
        self._num_plain: int = flags["num_plain"]
        self._num_companions: int = flags["num_constrained"]
        self._num_tokens: int = flags["output_tokens"]
        self._grammar = json_schema_grammar(SCHEMA, strict=True)

    async def seconds_per_token(self, key: str, *, is_constrained: bool) -> float:
        """Median over the plain streams of the time from the first to the last token, per token."""
        plain = SamplingParams(max_tokens=self._num_tokens, temperature=0.0, ignore_eos=True)
        companion = msgspec.structs.replace(plain, grammar=self._grammar if is_constrained else None)
        streams = [self._stream(f"{key}/plain {index}", plain) for index in range(self._num_plain)]
        streams += [self._stream(f"{key}/{index}", companion) for index in range(self._num_companions)]
        return statistics.median((await asyncio.gather(*streams))[: self._num_plain])

    async def _stream(self, key: str, params: SamplingParams) -> float:
        prompt_ids = random.Random(key).choices(range(self._vocab_size), k=64)
        arrivals_s: list[float] = []
        async with aclosing(self._engine.generate(prompt_ids, params)) as outputs:
            async for output in outputs:
                arrivals_s += [time.perf_counter()] * len(output.token_ids)
        assert len(arrivals_s) == params.max_tokens, "both kinds of companion do the same work"
        return (arrivals_s[-1] - arrivals_s[0]) / (len(arrivals_s) - 1)


async def compare(folder: Path, flags: dict[str, Any]) -> list[dict[str, float]]:
    """One entry per repeat."""
    config = EngineConfig(
        model_path=str(folder),
        device=flags["device"],
        max_num_batched_tokens=512,
        kv_cache_bytes=KV_CACHE_BYTES,
        max_model_len=1024,
        end_token_ids=TextTokenizer.load(folder).end_token_ids,
        num_threads=flags["threads"],
    )
    engine = await EngineClient.start(config, max_queue_size=0)
    try:
        comparison = Comparison(engine, int(read_config(folder)["vocab_size"]), flags)
        # Also reads the tokenizer and compiles the grammar for the first time.
        await comparison.seconds_per_token("warm-up", is_constrained=True)
        repeats = []
        for repeat in range(flags["repeats"]):
            found = {}
            for is_constrained in (False, True) if repeat % 2 else (True, False):
                key = f"{flags['seed']}/{repeat}/{is_constrained}"
                name = "beside_constrained_s" if is_constrained else "beside_plain_s"
                found[name] = await comparison.seconds_per_token(key, is_constrained=is_constrained)
            found["slowdown"] = found["beside_constrained_s"] / found["beside_plain_s"] - 1
            _say(f"repeat {repeat}: " + ", ".join(f"{name} {value:.5f}" for name, value in found.items()))
            repeats.append(found)
        return repeats
    finally:
        await engine.close()


@click.command()
@click.option("--model-folder", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(1))
@click.option("--num-plain", type=click.IntRange(1), default=12, show_default=True)
@click.option("--num-constrained", type=click.IntRange(1), default=4, show_default=True)
@click.option("--output-tokens", type=click.IntRange(2), default=128, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(model_folder: Path, **flags: Any) -> None:  # noqa: ANN401 - click hands over what the options say
    """Measure how much grammars slow down the streams beside them."""
    origin = provenance(("torch", "llguidance"))
    repeats = asyncio.run(compare(model_folder, flags))
    slowdowns = [repeat["slowdown"] for repeat in repeats]
    report = {
        **origin,
        "model_record": model_record(model_folder),
        "settings": flags,
        "repeats": repeats,
        "slowdown": {
            "median": statistics.median(slowdowns),
            "lowest": min(slowdowns),
            "highest": max(slowdowns),
            "target": TARGET_SLOWDOWN,
        },
        "load_average_after": load_average(),
    }
    _say(
        f"slowdown of plain streams: median {statistics.median(slowdowns):.1%}, "
        f"{min(slowdowns):.1%} to {max(slowdowns):.1%}; at most {TARGET_SLOWDOWN:.0%} wanted"
    )
    click.echo(json.dumps(report, ensure_ascii=False))


def _say(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    try:
        main(standalone_mode=False)
        code = 0
    except (OndolError, click.ClickException) as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    sys.exit(code)
