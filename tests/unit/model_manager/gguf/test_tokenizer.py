import json

import pytest
from support import gguf_files
from transformers import AutoTokenizer

from ondol.errors import ModelRefused
from ondol.model_manager.gguf.checkpoint import GGUFCheckpoint
from ondol.model_manager.gguf.tokenizer import write_tokenizer

TEXTS = [
    "hello hello",
    "12 and 1234567890",
    "안녕하세요, 세종대왕!",
    "🙂👩‍👩‍👧 x\n\n\ty",
    "<|im_start|>hello<|im_end|>",
    " leading and trailing ",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    path = gguf_files.write_gguf(folder / "tiny.gguf", gguf_files.random_weights())
    checkpoint = GGUFCheckpoint(path)
    write_tokenizer(checkpoint, folder)
    (folder / "config.json").write_text(json.dumps(checkpoint.config()))
    return folder


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_the_round_trip_through_transformers(folder, text):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_merges_apply_in_order_and_specials_are_single_tokens(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.tokenize("hello hello<|im_end|>") == ["hello", "Ġhello", "<|im_end|>"]


def test_every_digit_is_a_token_of_its_own_even_where_a_merge_exists(folder):
    assert AutoTokenizer.from_pretrained(folder).tokenize("12") == ["1", "2"]


def test_no_beginning_token_is_added_and_roles_are_those_of_the_file(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.encode("") == []
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )


def test_the_chat_template_is_the_files(folder):
    rendered = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": "안녕"}], tokenize=False
    )
    assert rendered == "<|im_start|>안녕<|im_end|>"


def test_an_unknown_pre_tokenizer_is_refused(tmp_path):
    path = gguf_files.write_gguf(
        tmp_path / "tiny.gguf", gguf_files.random_weights(), pre_tokenizer="llama-bpe"
    )
    with pytest.raises(ModelRefused, match="llama-bpe"):
        write_tokenizer(GGUFCheckpoint(path), tmp_path)
