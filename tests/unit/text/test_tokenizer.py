"""Tokenizers loaded from real folders: ids, BOS, end tokens, and folders that are refused."""

import io
import json

import pytest
import sentencepiece
from support.tokenizers import (
    CHATML_TEMPLATE,
    CORPUS,
    INST_TEMPLATE,
    build_byte_level_tokenizer,
    save_byte_level_tokenizer,
    save_sentencepiece_tokenizer,
    save_tokenizer,
)
from tokenizers import pre_tokenizers, processors

from ondol.errors import InvalidRequest, ModelRefused
from ondol.text.tokenizer import TextTokenizer

MESSAGES = [{"role": "user", "content": "안녕하세요, 온돌!"}]


def edit_json(path, **values):
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(content | values), encoding="utf-8")


@pytest.fixture
def byte_level_folder(tmp_path):
    save_byte_level_tokenizer(tmp_path)
    return tmp_path


@pytest.fixture
def sentencepiece_folder(tmp_path):
    save_sentencepiece_tokenizer(tmp_path)
    return tmp_path


def test_rendered_chat_has_one_bos(sentencepiece_folder):
    tokenizer = TextTokenizer.load(sentencepiece_folder)
    ids = tokenizer.encode_rendered(tokenizer.render_chat(MESSAGES))
    assert ids[0] == 1
    assert ids.count(1) == 1


def test_plain_text_gets_one_bos(sentencepiece_folder):
    ids = TextTokenizer.load(sentencepiece_folder).encode_text("안녕")
    assert ids[0] == 1
    assert ids.count(1) == 1


def test_no_bos_is_added_where_the_template_writes_none(tmp_path):
    save_sentencepiece_tokenizer(tmp_path, chat_template="{{ messages[0].content }}")
    tokenizer = TextTokenizer.load(tmp_path)
    assert 1 not in tokenizer.encode_rendered(tokenizer.render_chat(MESSAGES))


def test_special_tokens_of_the_template_become_single_ids(byte_level_folder):
    tokenizer = TextTokenizer.load(byte_level_folder)
    ids = tokenizer.encode_rendered(tokenizer.render_chat(MESSAGES))
    assert (ids.count(1), ids.count(2)) == (2, 1)


def test_decode_is_the_text_without_special_tokens(byte_level_folder):
    tokenizer = TextTokenizer.load(byte_level_folder)
    assert tokenizer.decode(tokenizer.encode_rendered("<|im_start|>따뜻한 방 🔥<|im_end|>")) == "따뜻한 방 🔥"


def test_decode_equals_the_deltas_of_a_detokenizer(sentencepiece_folder):
    tokenizer = TextTokenizer.load(sentencepiece_folder)
    ids = [*tokenizer.encode_text("쀍 👩‍👩‍👧‍👦"), 3 + 0xEB]
    detokenizer = tokenizer.detokenizer()
    deltas = [detokenizer.push([token_id]) for token_id in ids]
    assert (
        tokenizer.decode(ids)
        == "".join(deltas) + detokenizer.flush()
        == "쀍 👩‍👩‍👧‍👦\N{REPLACEMENT CHARACTER}"
    )


def test_vocab_size_is_the_tokenizers_not_the_models(byte_level_folder):
    edit_json(byte_level_folder / "config.json", vocab_size=1024)
    assert TextTokenizer.load(byte_level_folder).vocab_size == 512


def test_end_tokens_unite_every_source(byte_level_folder):
    edit_json(byte_level_folder / "generation_config.json", eos_token_id=[7, 0])
    edit_json(byte_level_folder / "config.json", eos_token_id=9)
    assert TextTokenizer.load(byte_level_folder).end_token_ids == (0, 2, 7, 9)


def test_end_token_id_zero_counts(byte_level_folder):
    edit_json(byte_level_folder / "config.json", eos_token_id=0)
    assert 0 in TextTokenizer.load(byte_level_folder).end_token_ids


def test_end_of_turn_token_is_found_in_the_template(byte_level_folder):
    edit_json(byte_level_folder / "tokenizer_config.json", eos_token="<|endoftext|>")
    assert TextTokenizer.load(byte_level_folder).end_token_ids == (0, 2)


def test_end_of_turn_token_after_a_space_is_found(tmp_path):
    source = CHATML_TEMPLATE.replace("'<|im_end|>'", "' <|im_end|>'")
    save_byte_level_tokenizer(tmp_path, chat_template=source)
    edit_json(tmp_path / "tokenizer_config.json", eos_token="<|endoftext|>")
    assert TextTokenizer.load(tmp_path).end_token_ids == (0, 2)


def test_template_without_end_of_turn_token_adds_none(tmp_path):
    source = "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}"
    save_sentencepiece_tokenizer(tmp_path, chat_template=source)
    assert TextTokenizer.load(tmp_path).end_token_ids == (2,)


def test_default_one_of_several_templates_is_used(byte_level_folder):
    templates = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": CHATML_TEMPLATE}]
    edit_json(byte_level_folder / "tokenizer_config.json", chat_template=templates)
    assert (
        TextTokenizer.load(byte_level_folder).render_chat(MESSAGES, tools=[]).startswith("<|im_start|>user")
    )


def test_template_file_beside_the_tokenizer_is_used(tmp_path):
    save_sentencepiece_tokenizer(tmp_path, chat_template=None)
    (tmp_path / "chat_template.jinja").write_text(INST_TEMPLATE, encoding="utf-8")
    assert TextTokenizer.load(tmp_path).render_chat(MESSAGES) == "<s>[INST] 안녕하세요, 온돌! [/INST]"


def test_chat_without_a_template_points_to_completions(tmp_path):
    save_byte_level_tokenizer(tmp_path, chat_template=None)
    tokenizer = TextTokenizer.load(tmp_path)
    assert tokenizer.chat_template is None
    with pytest.raises(InvalidRequest, match="/v1/completions"):
        tokenizer.render_chat(MESSAGES)


@pytest.mark.parametrize("tokenizer_class", ["GPT2Tokenizer", "Qwen2Tokenizer", "LlamaTokenizer"])
def test_splitting_rules_of_tokenizer_json_win_over_those_of_a_named_class(tmp_path, tokenizer_class):
    backend = build_byte_level_tokenizer()
    digits, letters = (
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, letters])
    save_tokenizer(tmp_path, backend, {"tokenizer_class": tokenizer_class})
    text = "2026년 1,000원 café"
    assert TextTokenizer.load(tmp_path).encode_text(text) == backend.encode(text).ids


def test_llama_2_text_after_bos_keeps_its_space_marker(sentencepiece_folder):
    tokenizer = TextTokenizer.load(sentencepiece_folder)
    bos, marker, *_ = tokenizer.encode_rendered("<s>[INST]")
    assert (bos, tokenizer.token_bytes[marker]) == (1, b" ")


def test_length_limit_in_tokenizer_json_does_not_cut_prompts(tmp_path):
    backend = build_byte_level_tokenizer()
    backend.enable_truncation(8)
    backend.enable_padding(length=16)
    save_tokenizer(tmp_path, backend, {"tokenizer_class": "PreTrainedTokenizerFast"})
    tokenizer = TextTokenizer.load(tmp_path)
    assert len(tokenizer.encode_text("온돌" * 50)) > 100
    assert len(tokenizer.encode_text("a")) == 1


def test_bos_of_the_post_processor_comes_with_plain_text_only(tmp_path):
    backend = build_byte_level_tokenizer(special_tokens=("<|begin_of_text|>", "<|eot_id|>"))
    backend.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing("<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]),
        ]
    )
    save_tokenizer(tmp_path, backend, {"tokenizer_class": "PreTrainedTokenizerFast"})
    tokenizer = TextTokenizer.load(tmp_path)
    assert tokenizer.encode_text("a")[0] == 0
    assert tokenizer.encode_rendered("<|begin_of_text|>a") == tokenizer.encode_text("a")


def test_lone_surrogate_is_the_requests_error(byte_level_folder):
    with pytest.raises(InvalidRequest, match="surrogate"):
        TextTokenizer.load(byte_level_folder).encode_text("half \ud83d")


def test_folder_without_a_tokenizer_is_refused_in_one_line(tmp_path):
    with pytest.raises(ModelRefused, match="no tokenizer") as refusal:
        TextTokenizer.load(tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model": {"type": "BPE"}}'])
def test_corrupt_tokenizer_json_is_refused_in_one_line(byte_level_folder, content):
    (byte_level_folder / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelRefused) as refusal:
        TextTokenizer.load(byte_level_folder)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "generation_config.json", "config.json"])
@pytest.mark.parametrize("content", ["{", "[1]"])
def test_corrupt_config_is_refused_by_its_name(byte_level_folder, name, content):
    (byte_level_folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(ModelRefused, match=name):
        TextTokenizer.load(byte_level_folder)


def test_tokenizer_that_needs_remote_code_is_refused_without_running_it(byte_level_folder):
    (byte_level_folder / "tokenization_evil.py").write_text("raise SystemExit(1)", encoding="utf-8")
    edit_json(
        byte_level_folder / "tokenizer_config.json",
        tokenizer_class="EvilTokenizer",
        auto_map={"AutoTokenizer": ["tokenization_evil.EvilTokenizer", None]},
    )
    with pytest.raises(ModelRefused, match="code from the model folder"):
        TextTokenizer.load(byte_level_folder)


def test_broken_chat_template_is_refused_at_loading(byte_level_folder):
    edit_json(byte_level_folder / "tokenizer_config.json", chat_template="{% for %}")
    with pytest.raises(ModelRefused, match="chat template"):
        TextTokenizer.load(byte_level_folder)


def test_folder_with_only_a_sentencepiece_model_gets_its_ids(tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        character_coverage=0.98,
        minloglevel=2,
    )
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    edit_json(
        tmp_path / "tokenizer_config.json",
        tokenizer_class="LlamaTokenizer",
        bos_token="<s>",
        eos_token="</s>",
    )
    tokenizer = TextTokenizer.load(tmp_path)
    text = "안녕 hello 👍🏽 쀍"
    reference = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    assert tokenizer.encode_text(text) == [reference.bos_id(), *reference.encode(text)]
    assert tokenizer.decode(tokenizer.encode_text(text)) == text
