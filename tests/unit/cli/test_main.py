import os
import re
import subprocess
import sys

import click
import pytest

from ondol import __version__
from ondol.cli import main as cli_main
from ondol.cli.lazy import CommandAddress, LazyGroup
from ondol.errors import AddressInUse, OndolError


def all_error_classes(root=OndolError):
    for error_class in root.__subclasses__():
        yield error_class
        yield from all_error_classes(error_class)


@pytest.fixture
def run_with(monkeypatch):
    """Run the `ondol` command's ending with a command body of the test's own."""

    def run(body):
        @click.group()
        def group():
            pass

        group.command("go")(body)
        monkeypatch.setattr(cli_main, "ondol", group)
        return cli_main.run(["go"])

    return run


def test_an_expected_failure_is_one_line_on_stderr_and_its_exit_code(run_with, capsys):
    def body():
        raise AddressInUse("port 8000 on 127.0.0.1 is in use; choose another with --port")

    assert run_with(body) == 9
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "ondol: error: port 8000 on 127.0.0.1 is in use; choose another with --port\n"


def test_ctrl_c_ends_with_code_130_and_no_traceback(run_with, capsys):
    def body():
        raise KeyboardInterrupt

    assert run_with(body) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_ctrl_c_while_the_program_is_still_being_read_is_one_line_and_code_130(tmp_path):
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "ondol", "ps"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nondol: interrupted\n")


def test_a_write_that_the_disk_does_not_take_is_one_line_and_code_5(tmp_path):
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0));"
        "from ondol.cli.main import run; sys.exit(run(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "--lang", "en", "key", "create", "laptop"]
    done = subprocess.run(
        [*command, "--home", str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 5
    assert done.stdout == ""
    assert done.stderr.startswith("ondol: error: The disk is full: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "keys.json").exists()


def test_a_failure_that_nobody_expected_is_not_hidden(run_with):
    def body():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_with(body)


def test_a_command_chooses_its_exit_code_through_the_context(run_with):
    assert run_with(lambda: click.get_current_context().exit(5)) == 5


def test_a_command_that_just_returns_ends_with_code_0(run_with):
    assert run_with(lambda: None) == 0


def test_every_exit_code_of_the_error_tree_is_in_the_help():
    documented = {int(code) for code in re.findall(r"^  (\d+) ", cli_main.EXIT_CODES, flags=re.MULTILINE)}
    raised = {error_class.exit_code for error_class in all_error_classes()}
    assert raised <= documented
    assert documented - raised == {0, 130}


def test_wrong_usage_ends_with_code_2_and_names_the_nearest_flag(capsys):
    assert cli_main.run(["config", "show", "--prot", "1"]) == 2
    assert "--port" in capsys.readouterr().err


def test_an_unknown_command_ends_with_code_2(capsys):
    assert cli_main.run(["srve"]) == 2
    assert "srve" in capsys.readouterr().err


def test_the_version_is_printed(capsys):
    assert cli_main.run(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def test_every_listed_command_can_be_imported_and_has_help(capsys):
    context = click.Context(cli_main.ondol)
    for name in cli_main.ondol.list_commands(context):
        assert cli_main.run([name, "--help"]) == 0
        assert f"ondol {name}" in capsys.readouterr().out


def test_every_command_has_an_example(capsys):
    context = click.Context(cli_main.ondol)
    for name in cli_main.ondol.list_commands(context):
        command = cli_main.ondol.get_command(context, name)
        parts = command.commands.values() if isinstance(command, click.Group) else [command]
        assert all("Example" in part.help + (part.epilog or "") for part in parts), name


def test_help_names_the_commands_and_imports_none_of_them():
    program = (
        "import sys; from ondol.cli.main import run; run(['--help']);"
        "print(sorted(m for m in sys.modules if m in ('torch', 'transformers', 'fastapi', 'pydantic')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert re.search(r"^  serve +Serve a model", done.stdout, flags=re.MULTILINE)
    assert done.stdout.endswith("[]\n")


def test_a_reader_that_goes_away_ends_the_command_quietly():
    show = subprocess.Popen(
        [sys.executable, "-m", "ondol", "config", "show"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    show.stdout.close()
    with show.stderr as stderr:
        assert stderr.read() == b""
    assert show.wait(timeout=60) == 1


def test_an_address_that_holds_no_command_is_our_own_bug():
    group = LazyGroup(addresses={"go": CommandAddress("ondol.errors:OndolError", "No command.")})
    with pytest.raises(TypeError, match="no click command"):
        group.get_command(click.Context(group), "go")
