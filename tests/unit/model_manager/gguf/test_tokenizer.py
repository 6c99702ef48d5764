import io
import json

import pytest
import sentencepiece
from gguf import TokenType
from hypothesis import given
from hypothesis import strategies as st
from support import gguf_files
from support.tokenizers import CORPUS
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer

from ondol.errors import ModelRefused
from ondol.model_manager.gguf.checkpoint import GGUFCheckpoint
from ondol.model_manager.gguf.config import model_config
from ondol.model_manager.gguf.tokenizer import write_tokenizer
from ondol.text.tokenizer import TextTokenizer

TEXTS = [
    "hello hello",
    "12 and 1234567890",
    "안녕하세요, 세종대왕!",
    "🙂👩‍👩‍👧 x\n\n\ty",
    "<|im_start|>hello<|im_end|>",
    " leading and trailing ",
]
HARD_TEXTS = [
    *TEXTS,
    *CORPUS,
    "I'LL don't\r\n\r\n  WE'RE  ",
    "가\u1100\u1161 각",
    "½ ٣ 12,345.678",
    "a\u00a0b   c",
]


def write(folder, tokenizer=None):
    folder.mkdir(parents=True, exist_ok=True)
    path = gguf_files.write_gguf(folder / "tiny.gguf", gguf_files.random_weights(), tokenizer=tokenizer)
    checkpoint = GGUFCheckpoint(path)
    write_tokenizer(checkpoint, folder)
    (folder / "config.json").write_text(json.dumps(model_config(checkpoint)))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("tokenizer"))


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


# The rules of the published tokenizer.json files, written down a second time.
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PUBLISHED = {
    "llama-bpe": (WORDS + r"\p{N}{1,3}" + REST, None, True),
    "qwen2": (WORDS + r"\p{N}" + REST, normalizers.NFC(), False),
}


def published_tokenizer(pattern, normalizer, ignore_merges):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator((*HARD_TEXTS, "123 " * 9), trainer)
    tokenizer.add_tokens(
        [AddedToken("<|begin_of_text|>", special=True), AddedToken("<|eot_id|>", special=True)]
    )
    return tokenizer


@pytest.fixture(scope="module", params=PUBLISHED)
def published(request, tmp_path_factory):
    """A published kind of tokenizer, and what comes of it by way of a GGUF file."""
    original = published_tokenizer(*PUBLISHED[request.param])
    add_vocabulary = gguf_files.byte_level_vocabulary(original.to_str())

    def tokenizer(writer):
        add_vocabulary(writer, request.param)
        writer.add_bos_token_id(original.token_to_id("<|begin_of_text|>"))
        writer.add_eos_token_id(original.token_to_id("<|eot_id|>"))

    return request.param, original, TextTokenizer.load(write(tmp_path_factory.mktemp("published"), tokenizer))


@pytest.mark.parametrize("text", HARD_TEXTS)
def test_text_is_split_as_the_published_tokenizer_splits_it(published, text):
    _, original, converted = published
    assert converted.encode_rendered(text) == original.encode(text, add_special_tokens=False).ids


def test_llama_3_starts_plain_text_with_bos_and_qwen2_does_not(published):
    name, original, converted = published
    front = [original.token_to_id("<|begin_of_text|>")] if name == "llama-bpe" else []
    assert converted.encode_text("hello") == front + converted.encode_rendered("hello")


def test_the_default_rules_split_words_punctuation_and_groups_of_three_digits(tmp_path):
    def tokenizer(writer):
        gguf_files.add_tokenizer(writer, "default")

    pieces = Tokenizer.from_file(str(write(tmp_path, tokenizer) / "tokenizer.json")).pre_tokenizer
    found = [piece for piece, _ in pieces.pre_tokenize_str("it's 1234567, ok  (yes)")]
    assert found == ["it", "'", "s", "Ġ", "123", "456", "7", ",", "Ġok", "ĠĠ", "(", "yes", ")"]


def test_an_unknown_pre_tokenizer_is_refused_with_those_that_are_known(tmp_path):
    with pytest.raises(ModelRefused, match=r"'tekken'.*llama-bpe"):
        write(tmp_path, lambda writer: gguf_files.add_tokenizer(writer, "tekken"))


def test_an_unknown_kind_of_vocabulary_is_refused(tmp_path):
    def tokenizer(writer):
        writer.add_tokenizer_model("bert")
        writer.add_token_list(["a", "b"])

    with pytest.raises(ModelRefused, match="'bert'"):
        write(tmp_path, tokenizer)


@pytest.fixture(scope="module")
def trained():
    """A real sentencepiece model with Llama 2's settings."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*CORPUS * 3, *HARD_TEXTS]),
        model_writer=model,
        model_type="bpe",
        vocab_size=600,
        character_coverage=0.98,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        user_defined_symbols=["<|im_start|>"],
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def sentencepiece_vocabulary(trained, writer, *, space_prefix=None):
    def kind(index):
        if trained.is_unknown(index):
            return TokenType.UNKNOWN
        if trained.is_control(index):
            return TokenType.CONTROL
        if trained.is_byte(index):
            return TokenType.BYTE
        return TokenType.USER_DEFINED if trained.id_to_piece(index) == "<|im_start|>" else TokenType.NORMAL

    ids = range(trained.vocab_size())
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([trained.id_to_piece(index) for index in ids])
    writer.add_token_scores([trained.get_score(index) for index in ids])
    writer.add_token_types([kind(index) for index in ids])
    writer.add_bos_token_id(trained.bos_id())
    writer.add_eos_token_id(trained.eos_id())
    writer.add_unk_token_id(trained.unk_id())
    if space_prefix is not None:
        writer.add_add_space_prefix(space_prefix)


@pytest.fixture(scope="module")
def converted(trained, tmp_path_factory):
    return TextTokenizer.load(
        write(tmp_path_factory.mktemp("spm"), lambda writer: sentencepiece_vocabulary(trained, writer))
    )


@pytest.mark.parametrize("text", [text for text in HARD_TEXTS if "<|im" not in text])
def test_sentencepiece_text_gets_the_ids_that_sentencepiece_gives(trained, converted, text):
    assert converted.encode_text(text) == [trained.bos_id(), *trained.encode(text)]
    assert converted.decode(converted.encode_text(text)) == text


@given(text=st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="▁"), max_size=40))
def test_any_text_gets_the_ids_that_sentencepiece_gives(trained, converted, text):
    assert converted.encode_rendered(text) == trained.encode(text)


def test_special_tokens_of_sentencepiece_are_single_tokens(trained, converted):
    ids = converted.encode_rendered("</s><|im_start|>hello")
    assert ids[0] == trained.eos_id()
    assert ids[1] == trained.piece_to_id("<|im_start|>")


def test_a_vocabulary_without_space_prefix_starts_words_as_they_are(trained, tmp_path):
    def tokenizer(writer):
        sentencepiece_vocabulary(trained, writer, space_prefix=False)

    without = TextTokenizer.load(write(tmp_path, tokenizer))
    assert without.token_bytes[without.encode_rendered("the")[0]][:1] == b"t"
    assert without.decode(without.encode_rendered(" the")) == " the"
