"""What deterministic mode costs on a CPU, on a model of a folder's sizes with random weights.

The measurement is that of benchmarks/gpu, for machines without one. Appends a JSON line per figure to a file,
prints a table on stderr and one JSON object as the last line of stdout. Invariant: both kinds of kernels are
measured in turns, in one process.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

import click
import torch

from benchmarks.gpu.determinism import CostPlan, measure_cost
from benchmarks.gpu.machine import Machine
from benchmarks.gpu.record import Recorder, read_run
from benchmarks.gpu.shapes import ModelShape
from benchmarks.gpu.summary import table
from benchmarks.gpu.timing import measure_rates
from ondol.bench.provenance import load_average, provenance
from ondol.kernels.backend import REFERENCE


@click.command()
@click.option("--model-folder", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Appended to.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--pairs", type=click.IntRange(2), default=15, show_default=True)
def main(model_folder: Path, out: Path, threads: int, pairs: int) -> None:
    """Measure decode steps and prompts with and without deterministic mode, in float32."""
    torch.set_num_threads(threads)
    cpu = torch.device("cpu")
    config = json.loads((model_folder / "config.json").read_text(encoding="utf-8"))
    shape = ModelShape(model_folder.name, config.pop("model_type"), config)
    run_id = datetime.now(UTC).isoformat(timespec="seconds")
    recorder = Recorder(out, run_id, "determinism")
    recorder.figure("environment", **provenance(("torch",)), num_threads=threads)
    plan = CostPlan(kinds=("bf16",), batches=(1, 4, 16), num_prompt_tokens=256, num_pairs=pairs)
    measure_cost(recorder, Machine(cpu, torch.float32, measure_rates(cpu), REFERENCE), shape, plan)
    recorder.figure("environment after", load_average=load_average())
    lines = read_run(out, run_id)
    click.echo(table(lines), err=True)
    click.echo(json.dumps({"run": run_id, "file": str(out), "figures": lines}))


if __name__ == "__main__":
    main()
