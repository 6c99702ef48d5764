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


def test_the_numbers_of_a_bar_reach_who_asked_for_them():
    heard = []
    with Progress(io.StringIO(), on_bytes=lambda done, total: heard.append((done, total))).bar(
        "a", 30
    ) as bar:
        bar.update(10)
        bar.update(20)
    assert heard == [(0, 30), (10, 30), (30, 30)]


def test_several_files_share_a_bar_of_all_bytes_that_knows_rate_and_time_left():
    stream = Terminal()
    with Progress(stream).transfer("someone/tiny", 3000, 1000) as transfer:
        with transfer.file("a.safetensors", 2000, 1000) as advance:
            advance(500)
            advance(500)
        with transfer.file("b.json", 1000) as advance:
            advance(1000)
    text = stream.getvalue()
    assert "someone/tiny:  33%" in text
    assert "a.safetensors:  50%" in text
    assert "someone/tiny: 100%" in text
    assert "B/s" in text


def test_a_log_file_gets_one_line_for_each_finished_file():
    stream = io.StringIO()
    with Progress(stream).transfer("someone/tiny", 3_000_000) as transfer:
        with transfer.file("a.safetensors", 2_000_000) as advance:
            advance(2_000_000)
        with transfer.file("b.json", 1_000_000) as advance:
            advance(1_000_000)
    _, first, second = stream.getvalue().splitlines()
    assert first.startswith("a.safetensors: 2.00MB, ")
    assert second.startswith("b.json: 1.00MB, ")
