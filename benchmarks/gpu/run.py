"""Measures the engine on a GPU: kernels against the reference, decode steps, first tokens, full load, peers.

    python benchmarks/gpu/run.py [--only PART ...] [--out FILE] [--within SECONDS] [--resume] [--smoke]

Needs torch, triton and transformers, no network and no installed `ondol`. Each part runs in a process of
its own and ends within 8 minutes; every figure is appended to FILE as it comes. The last line of stdout is
one JSON object. Where a machine is there for minutes only, --within ends a run in time and --resume goes on
with it. --smoke runs the same code on the CPU in tiny sizes: its figures mean nothing.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from benchmarks.gpu.bare_machine import prepare  # noqa: E402 - the path has to be there first

STAND_INS = prepare()

from benchmarks.gpu.machine import KERNEL_CHOICES, Machine  # noqa: E402
from benchmarks.gpu.parts import ENVIRONMENT, Part, all_parts  # noqa: E402
from benchmarks.gpu.record import PART_LIMIT_S, Recorder, newest_run, read_run  # noqa: E402
from benchmarks.gpu.summary import summarize, table  # noqa: E402

EXIT_SOME_FAILED = 1
# With less time than this a part would hardly get beyond its start.
LEAST_S = 100.0


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for; returns the exit code: 1 if anything failed."""
    options = _parse(arguments)
    origin: dict[str, object] = {"stand_ins": STAND_INS}
    if options.commit is not None:
        origin["commit"] = {"id": options.commit, "is_dirty": None}
    parts = all_parts(origin, is_smoke=options.smoke)
    chosen = [part for part in parts if not options.only or _is_asked(part, options.only)]
    if options.list:
        print("\n".join(part.name for part in chosen))
        return 0
    if not chosen:
        print(f"no part is called {' or '.join(options.only)}; --list names them", file=sys.stderr)
        return 2
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.run is not None:
        _measure(chosen, options, options.run)
        return 0
    run_id, ended = newest_run(options.out) if options.resume else (None, frozenset[str]())
    run_id = run_id or datetime.now(UTC).isoformat(timespec="seconds")
    if options.smoke:
        # One process: what is proven is that everything runs, not that it is apart.
        _measure(chosen, options, run_id)
    else:
        # The machine may be another one by now, and tells again what it is.
        left = [part for part in chosen if part.name not in ended - {ENVIRONMENT}]
        _run_all(left, options, run_id)
    lines = read_run(options.out, run_id)
    print(table(lines), file=sys.stderr)
    summary = summarize(lines, str(options.out), run_id)
    print(json.dumps(summary))
    return EXIT_SOME_FAILED if summary["failed"] else 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    default = HERE.parent / "results" / f"{datetime.now(UTC).date()}-gpu.jsonl"
    parser.add_argument("--only", action="append", metavar="PART", help="a part, or a family such as decode")
    parser.add_argument("--out", type=Path, default=default, metavar="FILE", help="appended to (%(default)s)")
    parser.add_argument("--within", type=float, metavar="SECONDS", help="end after so long, parts left over")
    parser.add_argument("--resume", action="store_true", help="go on with FILE's newest run: what it lacks")
    parser.add_argument("--list", action="store_true", help="print the parts' names and end")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--kernels", choices=KERNEL_CHOICES, default="auto", help="(%(default)s)")
    parser.add_argument("--commit", metavar="ID", help="to record where the checkout came without git")
    # Set where a part's process is started.
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--limit-s", type=float, default=PART_LIMIT_S, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _is_asked(part: Part, names: Sequence[str]) -> bool:
    return any(part.name == name or part.name.startswith(f"{name}:") for name in names)


def _measure(parts: Sequence[Part], options: argparse.Namespace, run_id: str) -> None:
    machine = Machine.find(options.kernels, is_smoke=options.smoke)
    for part in parts:
        part.measure(Recorder(options.out, run_id, part.name, options.limit_s), machine)
        machine.free_memory()


def _run_all(parts: Sequence[Part], options: argparse.Namespace, run_id: str) -> None:
    """One part after the other, as long as there is time."""
    end_s = math.inf if options.within is None else time.monotonic() + options.within
    for place, part in enumerate(parts):
        limit_s = min(PART_LIMIT_S, end_s - time.monotonic())
        if limit_s < min(LEAST_S, PART_LIMIT_S):
            names = " ".join(left.name for left in parts[place:])
            print(f"no time was left for {names}; --resume goes on with them", file=sys.stderr)
            return
        _run_apart(part, options, run_id, limit_s)


def _run_apart(part: Part, options: argparse.Namespace, run_id: str, limit_s: float) -> None:
    """A part in a process of its own; however it ends, what it measured is in the file."""
    recorder = Recorder(options.out, run_id, part.name)
    started = time.monotonic()
    command = [sys.executable, str(Path(__file__).resolve()), "--run", run_id, "--only", part.name]
    command += ["--out", str(options.out), "--kernels", options.kernels, "--limit-s", str(limit_s)]
    if options.commit is not None:
        command += ["--commit", options.commit]
    try:
        # Its output is for people: stdout is this process's last line alone.
        done = subprocess.run(command, stdout=sys.stderr, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        recorder.fail(part.name, f"ended after {limit_s:.0f} s; what it had measured is kept")
        if limit_s < PART_LIMIT_S:
            return  # it is measured again where there is more time
    else:
        if done.returncode != 0:
            recorder.fail(part.name, f"ended with exit code {done.returncode}")
    recorder.figure("part", seconds=time.monotonic() - started)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
