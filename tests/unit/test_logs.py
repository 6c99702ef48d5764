import io
import logging

import pytest

from ondol.logs import configure_logging


@pytest.fixture
def log():
    """Configure logging into a string; what was configured before comes back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()

    def configure(log_level):
        configure_logging(log_level, stream)
        return stream

    yield configure
    logging.basicConfig(handlers=handlers, level=level, force=True)
    for name in ("ondol", "uvicorn"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_an_event_is_one_line_with_level_and_logger(log):
    stream = log("info")
    logging.getLogger("ondol.cli.serve").info("serving %s", "starter")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith("INFO    ondol.cli.serve: serving starter")


def test_a_message_cannot_forge_a_second_line(log):
    stream = log("info")
    logging.getLogger("ondol").warning("bad name %s", "x\n2026-01-01 ERROR ondol: all is lost\r")
    assert len(stream.getvalue().splitlines()) == 1


def test_a_traceback_follows_its_line(log):
    stream = log("info")
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        logging.getLogger("ondol").exception("step failed")
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("ondol: step failed")
    assert lines[-1] == "RuntimeError: boom"


def test_the_level_holds_for_us_and_uvicorn_but_not_for_libraries_that_log_headers(log):
    stream = log("debug")
    for name in ("ondol.engine", "uvicorn.error", "httpx", "huggingface_hub"):
        logging.getLogger(name).debug("from %s", name)
    text = stream.getvalue()
    assert "from ondol.engine" in text
    assert "from uvicorn.error" in text
    assert "httpx" not in text
    assert "huggingface_hub" not in text


def test_uvicorn_tells_its_troubles_but_not_its_life(log):
    stream = log("info")
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    assert "Started" not in stream.getvalue()
    assert "Invalid HTTP request" in stream.getvalue()


def test_what_is_below_the_level_is_left_out(log):
    stream = log("warning")
    logging.getLogger("ondol").info("quiet")
    assert stream.getvalue() == ""


def test_configuring_twice_writes_each_event_once(log):
    log("info")
    stream = log("info")
    logging.getLogger("ondol").info("once")
    assert stream.getvalue().count("once") == 1
