import json

import pytest
from support.tokenizers import save_byte_level_tokenizer, save_sentencepiece_tokenizer

from ondol.cli import main as cli_main
from ondol.text.tokenizer import TextTokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    save_byte_level_tokenizer(root / "chatml")
    save_sentencepiece_tokenizer(root / "inst")
    save_byte_level_tokenizer(root / "base", chat_template=None)
    return root


def render(capsys, *arguments):
    assert cli_main.run(["template", *map(str, arguments)]) == 0
    return capsys.readouterr()


def test_stdout_is_the_prompt_and_stderr_the_counts(folders, capsys):
    shown = render(capsys, folders / "chatml", "--system", "짧게", "--user", "안녕?")
    assert shown.out == (
        "<|im_start|>system\n짧게<|im_end|>\n<|im_start|>user\n안녕?<|im_end|>\n<|im_start|>assistant\n\n"
    )
    assert "tokens\n" in shown.err
    assert "<|im_start|>" in shown.err


def test_json_tells_the_tokens_and_the_bos_that_the_template_writes(folders, capsys):
    report = json.loads(render(capsys, folders / "inst", "--user", "hi", "--json").out)
    tokenizer = TextTokenizer.load(folders / "inst")
    prompt = tokenizer.render_chat([{"role": "user", "content": "hi"}])
    assert report == {
        "model": "inst",
        "prompt": prompt,
        "num_tokens": len(report["token_ids"]),
        "token_ids": tokenizer.encode_rendered(prompt),
        "first_special_token": "<s>",
    }


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_conversation_comes_from_a_file_or_a_request_body(folders, capsys, tmp_path, wrapped):
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "둘"},
        {"role": "user", "content": "three"},
    ]
    path = tmp_path / "conversation.json"
    path.write_text(json.dumps({"messages": messages} if wrapped else messages), encoding="utf-8")
    shown = render(capsys, folders / "chatml", "--messages", path).out
    assert shown.index("one") < shown.index("둘") < shown.index("three")


@pytest.mark.parametrize(
    "arguments",
    [(), ("--system", "x"), ("--messages", "FILE", "--user", "x")],
)
def test_no_conversation_or_two_are_wrong_usage(folders, tmp_path, arguments):
    path = tmp_path / "m.json"
    path.write_text("[]", encoding="utf-8")
    given = [str(path) if word == "FILE" else word for word in arguments]
    assert cli_main.run(["template", str(folders / "chatml"), *given]) == 2


@pytest.mark.parametrize("content", ["{", "[]", '{"messages": 1}', '["hi"]', "[{}]"])
def test_a_file_that_is_no_conversation_is_wrong_usage(folders, tmp_path, content, capsys):
    path = tmp_path / "m.json"
    path.write_text(content, encoding="utf-8")
    assert cli_main.run(["template", str(folders / "chatml"), "--messages", str(path)]) == 2
    assert "--messages" in capsys.readouterr().err


def test_a_base_model_says_what_to_do(folders, capsys):
    assert cli_main.run(["template", str(folders / "base"), "--user", "hi"]) == 2
    assert f"ondol run {folders / 'base'}" in capsys.readouterr().err


def test_a_conversation_that_the_template_refuses_is_told_in_its_words(folders, capsys, tmp_path):
    path = tmp_path / "m.json"
    path.write_text(json.dumps([{"role": "assistant", "content": "first"}]), encoding="utf-8")
    assert cli_main.run(["template", str(folders / "inst"), "--messages", str(path)]) == 2
    assert "take turns" in capsys.readouterr().err


def test_a_template_of_the_settings_is_used_instead(folders, capsys, tmp_path):
    path = tmp_path / "own.jinja"
    path.write_text("Q: {{ messages[-1]['content'] }}\nA:", encoding="utf-8")
    shown = render(capsys, folders / "base", "--user", "안녕", "--chat-template", path)
    assert shown.out == "Q: 안녕\nA:\n"


def test_a_template_that_cannot_be_read_is_told(folders, capsys, tmp_path):
    arguments = ["template", str(folders / "base"), "--user", "hi", "--chat-template", str(tmp_path / "none")]
    assert cli_main.run(arguments) == 2
    assert "cannot be read" in capsys.readouterr().err
