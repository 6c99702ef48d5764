"""What this machine and a model could do at best: bandwidth, matrix products, bytes and operations.

Prints one JSON object. With --model-folder it also gives the model's bytes and operations per
token and the tokens per second of one stream, and of --batch streams at --context tokens each.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from ondol.bench.ceiling import CeilingMeter, measure_hardware
from ondol.bench.provenance import machine
from ondol.bench.roofline import BYTES_PER_ELEMENT, Load, ceiling_of
from ondol.errors import OndolError


@click.command()
@click.option("--model-folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--dtype", type=click.Choice(list(BYTES_PER_ELEMENT)), default="float32", show_default=True)
@click.option("--threads", type=click.IntRange(1), help="CPU threads; torch's own choice if left out.")
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True)
@click.option("--context", type=click.IntRange(1), default=256, show_default=True, help="Tokens per stream.")
def main(model_folder: Path | None, dtype: str, threads: int | None, batch: int, context: int) -> None:
    """Measure this machine and, for a model, compute its ceilings."""
    report: dict[str, object] = {"machine": machine()}
    if model_folder is None:
        report["hardware"] = measure_hardware(dtype, threads)
    else:
        meter = CeilingMeter.measure(model_folder, dtype, threads)
        # Decoding alone: the prompt counts as cached, and one more step than tokens from prefill.
        load = Load(batch, batch, context, context, mean_output_tokens=2)
        report |= meter.describe()
        report["batch"] = {
            "streams": batch,
            "context": context,
            **asdict(ceiling_of(load, meter.cost, meter.rates, dtype)),
        }
    click.echo(json.dumps(report))


if __name__ == "__main__":
    try:
        main(standalone_mode=False)
    except (OndolError, click.ClickException) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
