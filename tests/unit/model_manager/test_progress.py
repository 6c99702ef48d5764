import io

from ondol.model_manager import progress as progress_module
from ondol.model_manager.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def pull(stream, num_steps=100):
    with Progress(stream).bar("Unpacking", num_steps * 1000) as bar:
        for _ in range(num_steps):
            bar.update(1000)
            bar.refresh()


def test_a_log_file_gets_plain_lines_and_few_of_them():
    stream = io.StringIO()
    pull(stream)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("Unpacking")
    assert "\r" not in stream.getvalue()


def test_a_long_pull_keeps_a_log_file_informed(monkeypatch):
    clock_s = iter(range(0, 10_000, 3))
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(clock_s))
    stream = io.StringIO()
    pull(stream, num_steps=10)
    assert len(stream.getvalue().splitlines()) >= 5


def test_a_terminal_gets_a_moving_bar():
    stream = Terminal()
    pull(stream)
    assert "\r" in stream.getvalue()
    assert "100%" in stream.getvalue()


def test_progress_goes_to_stderr_and_never_to_stdout(capsys):
    Progress().note("hello")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n")
