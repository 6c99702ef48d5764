import pytest
from support.http_servers import QuietHandler, served

from ondol.api.errors import _KINDS
from ondol.cli.daemon_client import DaemonClient, daemon_url, typed_error
from ondol.config import load_settings
from ondol.errors import (
    DaemonUnreachable,
    InvalidRequest,
    ModelNotFound,
    Unauthorized,
)


class OtherServer(QuietHandler):
    """Something that is no Ondol."""

    def do_GET(self):
        self.reply(200 if self.path == "/page" else 404, b"<html>", {"Content-Type": "text/html"})


GOOD_EVENTS = ': comment\n\ndata: {"a": 1}\r\n\r\ndata: {"b": "한"}\n\ndata: [DONE]\n\ndata: {}\n\n'
BAD_EVENTS = 'data: {"a": 1}\n\ndata: {"error": {"code": "model_not_found", "message": "gone"}}\n\n'


class Streaming(QuietHandler):
    """Answers with the events of its path, then hangs up."""

    def do_GET(self):
        events = GOOD_EVENTS if self.path == "/good" else BAD_EVENTS
        self.reply(200, events.encode(), {"Content-Type": "text/event-stream"})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"error": {"code": "invalid_api_key", "message": "No.", "type": "x", "param": null}}'
        self.reply(401, body, {"Content-Type": "application/json"})


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("::1", "http://[::1]:8000"),
        ("localhost", "http://localhost:8000"),
    ],
)
def test_a_daemon_is_reached_where_its_settings_put_it(host, url):
    assert daemon_url(host, 8000) == url


def test_the_address_and_the_key_come_from_the_settings(monkeypatch):
    monkeypatch.setenv("ONDOL_PORT", "8123")
    monkeypatch.setenv("ONDOL_API_KEY", "비밀,other")
    daemon = DaemonClient.of(load_settings({}))
    assert daemon.url == "http://127.0.0.1:8123"
    assert daemon._http.headers.raw[-1] == (b"authorization", "Bearer 비밀".encode())
    assert DaemonClient.of(load_settings({}), "elsewhere:1/v1/").url == "http://elsewhere:1"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ftp://x", "http://[::1", "http://nobody.invalid"])
def test_where_nobody_answers_the_error_says_what_to_do(url):
    with pytest.raises(DaemonUnreachable) as caught:
        DaemonClient(url).get_json("/models")
    assert caught.value.exit_code == 6


def test_a_daemon_that_is_not_running_is_not_running():
    assert not DaemonClient("http://127.0.0.1:1").is_running()


def test_another_server_is_no_daemon():
    with served(OtherServer) as url, DaemonClient(url) as daemon:
        assert not daemon.is_running()
        for path in ("/page", "/models"):
            with pytest.raises(DaemonUnreachable, match="no Ondol daemon"):
                daemon.get_json(path)


def test_events_are_read_until_the_done_mark():
    opened = []
    with served(Streaming) as url, DaemonClient(url) as daemon:
        assert list(daemon.events("/good", on_open=lambda: opened.append(1))) == [{"a": 1}, {"b": "한"}]
    assert opened == [1]


def test_an_error_event_is_raised():
    with served(Streaming) as url, DaemonClient(url) as daemon:
        events = daemon.events("/bad")
        assert next(events) == {"a": 1}
        with pytest.raises(ModelNotFound, match="gone"):
            next(events)


def test_a_missing_key_is_told_with_the_flag_that_gives_one():
    with served(Streaming) as url, DaemonClient(url) as daemon:
        with pytest.raises(Unauthorized, match="--api-key") as caught:
            daemon.post_json("/anything", {})
        assert caught.value.exit_code == 4
        with pytest.raises(Unauthorized):
            list(daemon.events("/anything", {}))


@pytest.mark.parametrize(
    ("error_type", "kind"),
    _KINDS,
    ids=[error_type.__name__ for error_type, _ in _KINDS],
)
def test_an_error_has_the_same_exit_code_here_as_in_the_daemon(error_type, kind):
    error = typed_error({"code": kind.code, "message": "A sentence.", "type": kind.type, "param": kind.param})
    assert error.exit_code == error_type.exit_code
    assert str(error).startswith("A sentence.")


def test_an_error_that_names_a_field_keeps_it():
    error = typed_error(
        {"code": None, "message": "Wrong.", "type": "invalid_request_error", "param": "keep_alive"}
    )
    assert isinstance(error, InvalidRequest)
    assert error.param == "keep_alive"


def test_any_other_refusal_is_its_sentence():
    error = typed_error({"code": "new_here", "message": "Because.", "type": "server_error"})
    assert str(error) == "Because."
    assert error.exit_code == 1


def test_what_may_be_taken_later_is_told_apart_from_what_is_wrong():
    wrong = typed_error({"code": None, "message": "Wrong.", "type": "invalid_request_error", "param": None})
    busy = typed_error({"code": "model_in_use", "message": "Later.", "type": "invalid_request_error"})
    assert (wrong.exit_code, busy.exit_code) == (2, 11)
