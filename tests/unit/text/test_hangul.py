import itertools
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from ondol.text.hangul import SyllableTokens, hangul_tokens


def bytes_of(*texts):
    return [text.encode() for text in texts]


def test_a_syllable_counts_every_token_that_holds_a_part_of_it():
    parts = ["안".encode()[:1], "안".encode()[1:], "녕".encode()]
    cost = hangul_tokens(parts)
    assert cost.syllables == (SyllableTokens("안", 2), SyllableTokens("녕", 1))
    assert cost.tokens_per_syllable == 1.5


def test_a_token_of_several_syllables_is_one_token():
    cost = hangul_tokens(bytes_of("안녕", "하세요"))
    assert [syllable.num_tokens for syllable in cost.syllables] == [1, 1, 1, 1, 1]
    assert cost.tokens_per_syllable == 2 / 5


def test_other_text_and_special_tokens_do_not_count():
    cost = hangul_tokens(bytes_of("", "hello ", "방", "!", ""))
    assert (len(cost.syllables), cost.num_tokens) == (1, 1)


def test_a_text_without_hangul_has_no_mean():
    assert hangul_tokens(bytes_of("hello")).tokens_per_syllable is None


def test_conjoining_jamo_count_as_the_syllable_that_they_spell():
    jamo = unicodedata.normalize("NFD", "한글")
    cost = hangul_tokens([character.encode() for character in jamo])
    assert cost.syllables == (SyllableTokens("한", 3), SyllableTokens("글", 3))


def test_ill_formed_bytes_belong_to_no_syllable():
    cost = hangul_tokens([b"\xff", "가".encode(), b"\xea\xb0"])
    assert (cost.syllables, cost.num_tokens) == ((SyllableTokens("가", 1),), 1)


@given(st.text(alphabet="가힣각a 😀", max_size=12), st.lists(st.integers(0, 40), max_size=12))
def test_any_split_of_a_text_finds_the_same_syllables(text, cuts):
    data = text.encode()
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    parts = [data[start:end] for start, end in itertools.pairwise(edges)]
    cost = hangul_tokens(parts)
    assert "".join(syllable.syllable for syllable in cost.syllables) == "".join(
        character for character in text if "가" <= character <= "힣"
    )
    assert all(1 <= syllable.num_tokens <= 3 for syllable in cost.syllables)
    assert cost.num_tokens <= len(parts)
