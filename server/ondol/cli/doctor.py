"""`ondol doctor`: whether this machine can serve, and what to do where it cannot.

Knows nothing about how things are checked. Invariant: stdout is the report, and the exit code is that
of the first thing that makes serving impossible.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
from huggingface_hub import constants

from ondol.cli.diagnosis import machine, network, software
from ondol.cli.diagnosis.finding import Finding
from ondol.cli.flags import settings_options
from ondol.cli.language import tr
from ondol.cli.tables import table
from ondol.config import Settings, load_settings


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@settings_options("home", "host", "port", "device")
def doctor_command(as_json: bool, **flags: object) -> None:
    """Check Python, torch, GPU and driver, compiler, memory, disks, the Hub and the port.

    Takes a few seconds and loads no model. What only makes things slower is a warning; what makes
    serving impossible decides the exit code.

    \b
    Example:
      ondol doctor
      ondol doctor --device cuda --json
    """
    findings = list(examine(load_settings(flags)))
    exit_code = next((finding.exit_code for finding in findings if finding.status == "fail"), 0)
    if as_json:
        report = {"exit_code": exit_code, "findings": [asdict(finding) for finding in findings]}
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print("\n".join(lines(findings)))
    click.get_current_context().exit(exit_code)


def examine(settings: Settings) -> Iterator[Finding]:
    """All findings, in the order of how much depends on them."""
    yield software.python()
    yield software.libraries()
    build, facts = software.torch_build()
    yield build
    yield machine.gpu(facts, settings.device)
    yield machine.cpu(facts)
    yield software.compiler(facts)
    yield machine.memory()
    yield machine.disk(tr("model store"), settings.home)
    yield machine.disk(tr("Hub cache"), Path(constants.HF_HUB_CACHE))
    yield network.hub()
    yield network.token()
    yield network.port(settings)


def lines(findings: list[Finding]) -> list[str]:
    """The report for people: a table, then what to do."""
    words = {"ok": tr("ok"), "warn": tr("warn"), "fail": tr("fail")}
    headers = (tr("STATUS"), tr("CHECK"), tr("FOUND"))
    rows = [(words[finding.status], finding.name, finding.message) for finding in findings]
    advice = [f"  {finding.name}: {finding.advice}" for finding in findings if finding.advice]
    return [table(headers, rows), *(["", tr("What to do:"), *advice] if advice else [])]
