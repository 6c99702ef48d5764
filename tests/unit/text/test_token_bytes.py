"""Bytes of single tokens, and which decoders are refused."""

import pytest
from support.tokenizers import build_byte_level_tokenizer, build_sentencepiece_tokenizer
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from ondol.errors import ModelRefused
from ondol.text.token_bytes import TokenBytes


def sentencepiece_with(decoder):
    tokenizer = build_sentencepiece_tokenizer()
    tokenizer.decoder = decoder
    return tokenizer


def test_byte_level_alphabet_covers_every_byte_once():
    tokenizer = build_byte_level_tokenizer()
    token_bytes = TokenBytes.of(tokenizer)
    alphabet = [tokenizer.token_to_id(character) for character in pre_tokenizers.ByteLevel.alphabet()]
    assert sorted(token_bytes[token_id] for token_id in alphabet) == [bytes([value]) for value in range(256)]


def test_special_tokens_and_ids_without_a_piece_are_invisible():
    token_bytes = TokenBytes.of(build_byte_level_tokenizer())
    assert [token_bytes[token_id] for token_id in (0, 1, 2, -1, 512, 151_935)] == [b""] * 6


def test_gap_between_vocabulary_and_added_tokens_is_invisible():
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "b": 7}, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    token_bytes = TokenBytes.of(tokenizer)
    assert len(token_bytes) == 8
    assert [token_bytes[token_id] for token_id in (0, 3, 7)] == [b"a", b"", b"b"]


def test_added_token_outside_the_byte_alphabet_is_its_own_text():
    tokenizer = build_byte_level_tokenizer()
    tokenizer.add_tokens(["온돌", "two words"])
    token_bytes = TokenBytes.of(tokenizer)
    assert token_bytes[tokenizer.token_to_id("온돌")] == "온돌".encode()
    assert token_bytes[tokenizer.token_to_id("two words")] == b"two words"


def test_token_that_turns_special_after_training_is_invisible():
    tokenizer = build_byte_level_tokenizer()
    tokenizer.add_special_tokens([AddedToken("the", special=True)])
    assert TokenBytes.of(tokenizer)[tokenizer.token_to_id("the")] == b""


def test_only_well_formed_byte_tokens_stand_for_a_byte():
    vocab = {"<0xEA>": 0, "<0xG0>": 1, "<0x123>": 2, "x<0xEA>": 3, "▁x": 4}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    table = TokenBytes.of(tokenizer).table
    assert table == (b"\xea", b"<0xG0>", b"<0x123>", b"x<0xEA>", b" x")


def test_byte_tokens_are_text_where_the_decoder_has_no_byte_fallback():
    token_bytes = TokenBytes.of(sentencepiece_with(decoders.Replace("▁", " ")))
    assert token_bytes[3] == b"<0x00>"


@pytest.mark.parametrize(
    ("decoder", "name"),
    [
        (decoders.WordPiece(), "WordPiece"),
        (decoders.BPEDecoder(suffix="</w>"), "BPEDecoder"),
        (decoders.CTC(), "CTC"),
        (decoders.Sequence([decoders.ByteFallback(), decoders.Replace("▁", " ")]), "ByteFallback, Replace"),
        (decoders.Sequence([decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)]), "Replace, Strip"),
        (decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 1, 1)]), "1 at the end"),
        (decoders.Sequence([decoders.Fuse(), decoders.Strip("_", 1, 0)]), "Strip of '_'"),
        (decoders.Replace(Regex("▁+"), " "), "Replace by pattern"),
        (decoders.Sequence([]), "cannot stream"),
    ],
)
def test_decoder_that_looks_beyond_one_piece_is_refused_by_name(decoder, name):
    with pytest.raises(ModelRefused, match=name):
        TokenBytes.of(sentencepiece_with(decoder))


def test_tokenizer_without_a_decoder_is_refused():
    with pytest.raises(ModelRefused, match="none"):
        TokenBytes.of(Tokenizer(models.BPE(vocab={"a": 0}, merges=[])))
