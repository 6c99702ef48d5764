"""The Makefile's set-up logic, with an interpreter that only writes down what it is asked for."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Stands in for Python: makes a .venv with a copy of itself, and fails where the test says so.
FAKE_PYTHON = """#!/bin/sh
case "$*" in
  *'version("triton")') test ! -e "$FAKE_HOME/has-no-triton"; exit $? ;;
  "-c "*) test ! -e "$FAKE_HOME/is-too-old"; exit $? ;;
  "--version") echo "Python 3.9.1"; exit 0 ;;
  "-m pip --version") exit 0 ;;
esac
echo "$*" >> "$FAKE_HOME/calls"
case "$*" in
  "-m venv --clear .venv")
    rm -rf .venv && mkdir -p .venv/bin && cp "$0" .venv/bin/python && cp "$0" .venv/bin/lint-imports ;;
  "-m pip install"*) test ! -e "$FAKE_HOME/has-no-network" ;;
esac
"""


FAKE_NPM = """#!/bin/sh
echo "npm $*" >> "$FAKE_HOME/calls"
test ! -e "$FAKE_HOME/has-no-network" && mkdir -p tests/e2e/node_modules
"""

FAKE_NODE = """#!/bin/sh
echo "node $*" >> "$FAKE_HOME/calls"
rm -rf clients/web/vendor && mkdir -p clients/web/vendor
"""

# That it is there keeps browser-setup from installing one.
FAKE_CHROMIUM = """#!/bin/sh
"""


class Checkout:
    """A checkout with the real Makefile, and what its set-up called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        self.fake_home = folder / "fake"
        self.folder.mkdir()
        self.fake_home.mkdir()
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.folder)
        self.python = self.fake_home / "python"
        tools = {"python": FAKE_PYTHON, "npm": FAKE_NPM, "node": FAKE_NODE, "chromium": FAKE_CHROMIUM}
        for name, script in tools.items():
            (self.fake_home / name).write_text(script)
            (self.fake_home / name).chmod(0o755)

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", *arguments, f"PYTHON={self.python}"],
            cwd=self.folder,
            env={"PATH": f"{self.fake_home}:/usr/bin:/bin", "FAKE_HOME": str(self.fake_home)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def switch(self, name: str, is_on: bool) -> None:
        (self.fake_home / name).touch() if is_on else (self.fake_home / name).unlink()

    def take_calls(self) -> list[str]:
        """What was called since the last look."""
        calls = self.fake_home / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return lines


FAST_TESTS = (
    "-m pytest -n 2 --dist loadfile --no-loadscope-reorder -m not slow",
    "-m pytest tests/interpreted -m not slow",
)


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


INSTALL = "-m pip install --disable-pip-version-check -c constraints.txt -e"


def test_serve_sets_up_once_and_only_serves_afterwards(checkout):
    assert checkout.make("serve").returncode == 0
    serving = ["-m ondol pull starter", "-m ondol serve starter"]
    assert checkout.take_calls() == ["-m venv --clear .venv", f"{INSTALL} .", *serving]
    assert checkout.make("serve").returncode == 0
    assert checkout.take_calls() == serving


def test_the_set_up_for_tests_also_serves(checkout):
    assert checkout.make("test").returncode == 0
    made = ["-m venv --clear .venv", f"{INSTALL} .", f"{INSTALL} .[dev]"]
    assert checkout.take_calls() == [*made, *FAST_TESTS]
    checkout.make("serve")
    assert not any("pip" in call for call in checkout.take_calls())


def test_tests_add_to_the_set_up_for_serving(checkout):
    checkout.make("serve")
    checkout.take_calls()
    checkout.make("test")
    assert checkout.take_calls() == [f"{INSTALL} .[dev]", *FAST_TESTS]


def test_tests_get_the_oldest_triton_where_torch_has_brought_none(checkout):
    checkout.make("serve")
    checkout.take_calls()
    checkout.switch("has-no-triton", True)
    checkout.make("test")
    triton, dev, *_ = checkout.take_calls()
    assert triton == f'{INSTALL.removesuffix(" -e")} triton==3.6.0; sys_platform == "linux"'
    assert dev == f"{INSTALL} .[dev]"


def test_no_constraint_asks_for_another_triton_than_torch_brings():
    names = [line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()]
    assert "torch" in names
    assert "triton" not in names


def test_changed_requirements_are_installed_into_the_same_environment(checkout):
    checkout.make("serve")
    checkout.take_calls()
    with (checkout.folder / "constraints.txt").open("a") as constraints:
        constraints.write("colorama==0.4.6\n")
    checkout.make("serve")
    assert checkout.take_calls()[0] == f"{INSTALL} ."


def test_an_interrupted_set_up_is_done_again_from_the_start(checkout):
    checkout.switch("has-no-network", True)
    assert checkout.make("serve").returncode != 0
    assert checkout.take_calls()[-1] == f"{INSTALL} ."
    checkout.switch("has-no-network", False)
    assert checkout.make("serve").returncode == 0
    assert checkout.take_calls()[:2] == ["-m venv --clear .venv", f"{INSTALL} ."]


def test_an_update_that_fails_keeps_the_environment_that_worked(checkout):
    checkout.make("serve")
    with (checkout.folder / "constraints.txt").open("a") as constraints:
        constraints.write("colorama==0.4.6\n")
    checkout.switch("has-no-network", True)
    checkout.take_calls()
    for _ in range(2):
        assert checkout.make("serve").returncode != 0
    assert checkout.take_calls() == [f"{INSTALL} .", f"{INSTALL} ."]


def test_an_old_python_is_refused_with_a_way_out_and_nothing_is_made(checkout):
    checkout.switch("is-too-old", True)
    done = checkout.make("serve")
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr
    assert "Python 3.9.1" in done.stderr
    assert "make serve PYTHON=" in done.stderr
    assert not (checkout.folder / ".venv").exists()


def test_node_packages_are_installed_once_and_again_when_the_lock_file_changes(checkout):
    install = "npm ci --prefix tests/e2e --no-audit --no-fund"
    lock = checkout.folder / "tests" / "e2e" / "package-lock.json"
    lock.parent.mkdir(parents=True)
    for content in ("{}", '{"lockfileVersion": 3}'):
        lock.write_text(content)
        checkout.switch("has-no-network", True)
        assert checkout.make("node-setup").returncode != 0
        checkout.switch("has-no-network", False)
        assert checkout.make("node-setup").returncode == 0
        assert checkout.make("node-setup").returncode == 0
        assert checkout.take_calls() == [install, install]


def test_without_a_lock_file_the_node_clients_are_left_out_aloud(checkout):
    assert "are skipped" in checkout.make("node-setup").stdout
    assert checkout.take_calls() == []


def test_the_web_chats_packages_are_installed_once_and_again_when_they_change(checkout):
    lock = checkout.folder / "clients" / "web" / "package-lock.json"
    lock.parent.mkdir(parents=True)
    for content in ("{}", '{"lockfileVersion": 3}'):
        lock.write_text(content)
        for _ in range(2):
            assert checkout.make("web-setup").returncode == 0
        npm, node = checkout.take_calls()
        assert npm.startswith("npm ci --prefix clients/web --ignore-scripts")
        assert node == "node clients/web/vendor.mjs"


def test_serving_goes_on_without_the_web_chats_packages_and_says_so(checkout):
    checkout.make("serve")
    lock = checkout.folder / "clients" / "web" / "package-lock.json"
    lock.parent.mkdir(parents=True)
    lock.write_text("{}")
    checkout.switch("has-no-network", True)
    checkout.take_calls()
    done = checkout.make("serve")
    assert done.returncode == 0
    assert "make web-setup" in done.stderr
    assert checkout.take_calls()[-1] == "-m ondol serve starter"


def test_model_host_port_and_further_arguments_are_handed_on(checkout):
    checkout.make("serve", "MODEL=/models/my model", "HOST=0.0.0.0", "PORT=9000", "ARGS=--threads 2")
    assert checkout.take_calls()[-1] == (
        "-m ondol serve /models/my model --host 0.0.0.0 --port 9000 --threads 2"
    )


def test_without_a_model_the_settings_decide(checkout):
    checkout.make("serve", "MODEL=")
    assert checkout.take_calls()[-1] == "-m ondol serve"


def test_a_failing_command_fails_make(checkout):
    checkout.make("lint")
    checkout.take_calls()
    (checkout.folder / ".venv" / "bin" / "python").write_text("#!/bin/sh\nexit 3\n")
    assert checkout.make("types").returncode != 0


def test_check_is_lint_types_and_contracts(checkout):
    assert checkout.make("check").returncode == 0
    assert checkout.take_calls()[3:] == ["-m ruff format --check .", "-m ruff check .", "-m mypy", ""]


def test_clean_removes_what_set_up_made(checkout):
    checkout.make("test")
    assert checkout.make("clean").returncode == 0
    assert not (checkout.folder / ".venv").exists()


def test_ci_runs_the_command_of_the_readme():
    commands = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert "timed make test" in commands
