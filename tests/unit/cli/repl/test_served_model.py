import pytest
from support.http_servers import QuietHandler, served

from ondol.cli.repl.errors import ChatError
from ondol.cli.repl.served_model import ServedModel

QUESTION = [{"role": "user", "content": "hi"}]


def answers(status, body, content_type="application/json", seen=None):
    class Handler(QuietHandler):
        def do_GET(self):
            if seen is not None:
                seen.append(self.headers)
            self.reply(status, body, {"Content-Type": content_type})

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

    return served(Handler)


def asked(url):
    with ServedModel(f"{url}/v1", "tiny") as model:
        return list(model.answer(QUESTION, {}))


def test_a_key_may_hold_any_characters():
    seen = []
    with (
        answers(200, b'{"object": "list", "data": []}', seen=seen) as url,
        ServedModel(f"{url}/v1", "tiny", "열쇠") as model,
    ):
        assert model.names() == []
    assert seen[0]["authorization"].encode("latin-1").decode() == "Bearer 열쇠"


def test_the_proxies_of_the_environment_are_passed_by(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert "".join(part.text for part in asked(server.url)) == "You said: hi"


def test_a_refusal_is_the_servers_own_sentence_on_one_line(server):
    server.error = (429, {"message": "Too many\nrequests.", "type": "x", "code": None})
    with pytest.raises(ChatError, match=r"^Too many requests\.$"):
        asked(server.url)
    assert len(server.bodies) == 1


def test_a_refusal_of_another_kind_of_server_is_one_line():
    with answers(502, b"<html>\nBad gateway</html>", "text/html") as url, pytest.raises(ChatError) as caught:
        asked(url)
    assert "\n" not in str(caught.value)


def test_a_server_that_does_not_speak_the_protocol_is_told():
    with (
        answers(200, b"data: no json\n\n", "text/event-stream") as url,
        pytest.raises(ChatError, match="OpenAI's API"),
    ):
        asked(url)


def test_an_answer_without_an_end_is_no_whole_answer(server):
    server.finish_reason = None
    with pytest.raises(ChatError, match="broke off"):
        asked(server.url)


def test_a_server_that_is_not_there_is_told():
    with pytest.raises(ChatError, match="No server answers"):
        asked("http://127.0.0.1:9")
