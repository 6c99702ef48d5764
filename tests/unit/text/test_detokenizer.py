"""Deltas against the tokenizers library's decode, and against bytes decoded in one go."""

import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tokenizers import build_byte_level_tokenizer, build_sentencepiece_tokenizer
from tokenizers import AddedToken, decoders

from ondol.text.detokenizer import IncrementalDetokenizer
from ondol.text.token_bytes import TokenBytes

# A busy machine must not fail a property: time is not what is tested.
UNTIMED = settings(deadline=None)

MIXED_TEXTS = (
    "안녕하세요, 온돌입니다.",
    "똠방각하 펲시콜라 쀍쉛",
    "한글 자모 분리: 한글",  # NFD: conjoining jamo
    "family 👩‍👩‍👧‍👦, thumbs 👍🏽, flags 🇰🇷🇺🇸, keycap 1️⃣",
    "안녕 hello 混ぜた 文字 — naïve café\n\tdef f(): return '값'",
    "  두 칸으로 시작하고 끝나는 글  ",
    "\u200b\ufeff제로 폭 \u200d",
)
BYTE_RUN = re.compile(r"(?:<0x[0-9A-F]{2}>)+")


@cache
def byte_level():
    tokenizer = build_byte_level_tokenizer()
    tokenizer.add_tokens(["온돌", "<café>", "Ġ", "두 칸"])
    tokenizer.add_special_tokens([AddedToken("<|tool|>", special=True)])
    return tokenizer, TokenBytes.of(tokenizer)


@cache
def plain_byte_level():
    tokenizer = build_byte_level_tokenizer()
    return tokenizer, TokenBytes.of(tokenizer)


@cache
def sentencepiece():
    tokenizer = build_sentencepiece_tokenizer()
    return tokenizer, TokenBytes.of(tokenizer)


@cache
def metaspace():
    tokenizer = build_sentencepiece_tokenizer()
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    return tokenizer, TokenBytes.of(tokenizer)


KINDS = {"byte-level": byte_level, "sentencepiece": sentencepiece}

# Ids past the vocabulary stand for the padded rows of a model's head.
TOKEN_IDS = st.lists(st.integers(0, 560), max_size=40)
# Mostly byte tokens: runs that begin, break off and mend a character.
BYTE_TOKEN_IDS = st.lists(
    st.one_of(st.integers(3, 258), st.sampled_from([0xEA + 3, 0xB0 + 3, 0x80 + 3]), st.integers(0, 560)),
    max_size=40,
)


def stream(token_bytes, token_ids, cuts=()):
    detokenizer = IncrementalDetokenizer(token_bytes)
    bounds = sorted({0, len(token_ids), *(min(cut, len(token_ids)) for cut in cuts)})
    deltas = [detokenizer.push(token_ids[start:end]) for start, end in pairwise(bounds)]
    return [*deltas, detokenizer.flush()]


def one_by_one(token_bytes, token_ids):
    return stream(token_bytes, token_ids, range(len(token_ids)))


def decode_sentencepiece_by_runs(tokenizer, token_ids):
    """Pieces joined as text, then each run of byte tokens decoded on its own."""
    added = tokenizer.get_added_tokens_decoder()
    visible = [
        token_id for token_id in token_ids if token_id not in added and token_id < tokenizer.get_vocab_size()
    ]
    pieces = "".join(tokenizer.id_to_token(token_id).replace("▁", " ") for token_id in visible)
    text = BYTE_RUN.sub(
        lambda run: bytes.fromhex(re.sub("<0x|>", "", run[0])).decode("utf-8", "replace"), pieces
    )
    return text.removeprefix(" ")


@UNTIMED
@given(TOKEN_IDS, st.lists(st.integers(0, 40)))
def test_byte_level_deltas_add_up_to_the_librarys_decode_for_any_ids(token_ids, cuts):
    tokenizer, token_bytes = byte_level()
    assert "".join(stream(token_bytes, token_ids, cuts)) == tokenizer.decode(
        token_ids, skip_special_tokens=True
    )


@UNTIMED
@given(st.one_of(TOKEN_IDS, BYTE_TOKEN_IDS), st.lists(st.integers(0, 40)))
def test_sentencepiece_deltas_add_up_to_each_run_of_bytes_decoded_whole(token_ids, cuts):
    tokenizer, token_bytes = sentencepiece()
    deltas = stream(token_bytes, token_ids, cuts)
    assert "".join(deltas) == decode_sentencepiece_by_runs(tokenizer, token_ids)


@UNTIMED
@given(TOKEN_IDS)
def test_sentencepiece_deltas_add_up_to_the_librarys_decode_where_byte_runs_are_well_formed(token_ids):
    tokenizer, token_bytes = sentencepiece()
    text = "".join(one_by_one(token_bytes, token_ids))
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert text == tokenizer.decode(token_ids, skip_special_tokens=True)


@UNTIMED
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_unicode_text_survives_byte_level_encoding_and_streaming(text):
    tokenizer, token_bytes = plain_byte_level()
    # Text that spells a special token becomes that token, which is invisible: not what is tested here.
    text = text.replace("<|", "<")
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert "".join(one_by_one(token_bytes, ids)) == text


@UNTIMED
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_unicode_text_survives_sentencepiece_encoding_and_streaming(text):
    tokenizer, token_bytes = sentencepiece()
    text = text.replace("<", "(").replace("▁", " ")
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert "".join(one_by_one(token_bytes, ids)) == text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", MIXED_TEXTS)
def test_every_cut_of_mixed_text_gives_the_text_and_no_replacement_character(kind, text):
    tokenizer, token_bytes = KINDS[kind]()
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    for cut in range(len(ids) + 1):
        deltas = stream(token_bytes, ids, [cut])
        assert "".join(deltas) == text
        assert "\N{REPLACEMENT CHARACTER}" not in "".join(deltas)
    assert "".join(one_by_one(token_bytes, ids)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_syllable_comes_out_whole_with_its_last_byte(kind):
    _, token_bytes = KINDS[kind]()
    syllable = "뷁".encode()
    byte_ids = {token_bytes[token_id]: token_id for token_id in range(len(token_bytes))}
    deltas = one_by_one(token_bytes, [byte_ids[bytes([value])] for value in syllable])
    assert deltas == ["", "", "뷁", ""]


@pytest.mark.parametrize("kind", KINDS)
def test_flush_tells_of_an_unfinished_character(kind):
    _, token_bytes = KINDS[kind]()
    byte_ids = {token_bytes[token_id]: token_id for token_id in range(len(token_bytes))}
    detokenizer = IncrementalDetokenizer(token_bytes)
    assert detokenizer.push([byte_ids[b"a"], byte_ids[b"\xeb"]]) == "a"
    assert detokenizer.flush() == "\N{REPLACEMENT CHARACTER}"
    assert detokenizer.flush() == ""


def test_broken_byte_costs_no_neighbouring_syllable():
    _, token_bytes = sentencepiece()
    token_ids = [3 + value for value in "가".encode() + b"\xff" + "나".encode()]
    assert "".join(one_by_one(token_bytes, token_ids)) == "가\N{REPLACEMENT CHARACTER}나"


def test_special_token_inside_a_character_is_invisible():
    tokenizer, token_bytes = sentencepiece()
    first, second, third = (3 + value for value in "가".encode())
    end = tokenizer.token_to_id("</s>")
    assert "".join(one_by_one(token_bytes, [first, end, second, third])) == "가"


def test_one_leading_space_of_a_sentencepiece_text_is_dropped_however_it_arrives():
    tokenizer, token_bytes = sentencepiece()
    space = tokenizer.token_to_id("▁")
    bos = tokenizer.token_to_id("<s>")
    assert one_by_one(token_bytes, [bos, space, space, tokenizer.token_to_id("h")])[:4] == ["", "", " ", "h"]


@pytest.mark.parametrize("decoder", [None, decoders.Metaspace(prepend_scheme="always")])
def test_continuation_of_a_prompt_keeps_its_leading_space(decoder):
    tokenizer = build_sentencepiece_tokenizer()
    tokenizer.decoder = decoder or tokenizer.decoder
    token_bytes = TokenBytes.of(tokenizer)
    ids = tokenizer.encode("the the", add_special_tokens=False).ids
    assert IncrementalDetokenizer(token_bytes, is_continuation=True).push(ids) == " the the"
    assert IncrementalDetokenizer(token_bytes).push(ids) == "the the"


@UNTIMED
@given(
    st.lists(st.one_of(st.integers(0, 2), st.integers(259, 560)), max_size=20), st.lists(st.integers(0, 20))
)
def test_metaspace_deltas_add_up_to_the_librarys_decode(token_ids, cuts):
    tokenizer, token_bytes = metaspace()
    deltas = stream(token_bytes, token_ids, cuts)
    assert "".join(deltas) == tokenizer.decode(token_ids, skip_special_tokens=True)


def test_thousands_of_byte_tokens_stream_as_one_text():
    _, token_bytes = sentencepiece()
    text = Path(__file__).read_text(encoding="utf-8")
    token_ids = [3 + value for value in text.encode()]
    assert "".join(one_by_one(token_bytes, token_ids)) == text
