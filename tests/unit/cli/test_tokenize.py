import io
import json
import sys

import pytest
from support.tokenizers import save_byte_level_tokenizer, save_sentencepiece_tokenizer

from ondol.cli import main as cli_main
from ondol.text.tokenizer import TextTokenizer


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "byte-level"
    save_byte_level_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "sentencepiece"
    save_sentencepiece_tokenizer(folder)
    return folder


def tokenize(capsys, *arguments):
    assert cli_main.run(["tokenize", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_json_tells_ids_pieces_and_bytes_of_a_folder_without_weights(byte_level, capsys):
    report = json.loads(tokenize(capsys, byte_level, "안녕 방", "--json"))
    tokenizer = TextTokenizer.load(byte_level)
    ids = [token["id"] for token in report["tokens"]]
    assert ids == tokenizer.encode_text("안녕 방")
    assert bytes.fromhex("".join(token["bytes"] for token in report["tokens"])).decode() == "안녕 방"
    assert [token["piece"] for token in report["tokens"]] == [tokenizer.piece(token_id) for token_id in ids]
    assert (report["model"], report["num_tokens"], report["num_characters"]) == ("byte-level", len(ids), 4)
    assert [cost["syllable"] for cost in report["hangul"]["syllables"]] == ["안", "녕", "방"]


def test_part_of_a_character_has_bytes_and_no_text(byte_level, capsys):
    tokens = json.loads(tokenize(capsys, byte_level, "뷁", "--json"))["tokens"]
    assert len(tokens) == 3
    assert {token["text"] for token in tokens} == {None}


def test_special_tokens_are_marked(sentencepiece, byte_level, capsys):
    first = json.loads(tokenize(capsys, sentencepiece, "hi", "--json"))["tokens"][0]
    assert (first["piece"], first["is_special"], first["bytes"]) == ("<s>", True, "")
    assert "special" in tokenize(capsys, byte_level, "a<|im_end|>")


def test_the_table_shows_the_mean_per_syllable(byte_level, capsys):
    shown = tokenize(capsys, byte_level, "뷁뷁")
    assert "2 Hangul syllables in 6 tokens: 3.00 tokens per syllable" in shown
    assert "뷁 3   뷁 3" in shown


def test_a_text_without_hangul_has_no_line_about_it(byte_level, capsys):
    assert "Hangul" not in tokenize(capsys, byte_level, "hello")


def test_a_pipe_is_read_where_no_text_is_given(byte_level, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\n")))
    report = json.loads(tokenize(capsys, byte_level, "--json"))
    assert report["num_characters"] == 3


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    assert cli_main.run(["tokenize", str(tmp_path), "x"]) == 8


def test_an_unknown_model_is_not_found():
    assert cli_main.run(["tokenize", "no-such-model", "x"]) == 3
