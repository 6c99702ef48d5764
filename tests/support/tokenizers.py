"""Small real tokenizers, trained on the spot, and Hugging Face folders that hold them.

Two kinds cover the model families: byte-level BPE with ChatML (Qwen2, SmolLM2; Llama-3 differs in
names only) and sentencepiece-like BPE with byte fallback and the [INST] format (Llama-2, Mistral).
Knows nothing about models. Training is deterministic: equal calls give equal tokenizers.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

CORPUS = (
    "Give me a short introduction to large language models.",
    "Large language models are trained on text and answer questions about the world.",
    "The quick brown fox jumps over the lazy dog, and the dog does not mind at all.",
    "안녕하세요. 만나서 반갑습니다. 오늘 날씨가 참 좋네요.",
    "온돌은 바닥을 데워 방을 따뜻하게 하는 한국의 난방 방식입니다.",
    "대규모 언어 모델을 짧게 소개해 주세요. 감사합니다.",
    "def add(left, right):\n    return left + right\n",
    "emoji 😀 👍🏽 👩‍👩‍👧‍👦 🇰🇷 and 混ぜた 文字 — naïve café",
)

CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

INST_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}"
    "{% if message['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') %}"
    "{{ raise_exception('user and assistant messages must take turns, user first') }}"
    "{% endif %}"
    "{% if message['role'] == 'user' %}"
    "{% set opening = system if loop.first else '' %}"
    "{{ bos_token + '[INST] ' + (opening + message['content']).strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)

CHATML_SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SENTENCEPIECE_SPECIAL_TOKENS = ("<unk>", "<s>", "</s>")


def build_byte_level_tokenizer(
    vocab_size: int = 512, special_tokens: tuple[str, ...] = CHATML_SPECIAL_TOKENS
) -> Tokenizer:
    """GPT-2 style BPE over bytes; the special tokens take the first ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def build_sentencepiece_tokenizer(vocab_size: int = 512) -> Tokenizer:
    """Llama-2 style BPE: <unk> <s> </s>, the 256 byte tokens, then pieces with ▁ for a space."""
    byte_tokens = [f"<0x{value:02X}>" for value in range(256)]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    alphabet = common_characters(64)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SENTENCEPIECE_SPECIAL_TOKENS, *byte_tokens],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    trained.train_from_iterator(CORPUS, trainer)
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(
        models.BPE(vocab=model["vocab"], merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(
        [AddedToken(content, special=True, normalized=False) for content in SENTENCEPIECE_SPECIAL_TOKENS]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def common_characters(num_characters: int) -> list[str]:
    """The corpus's commonest characters; the trainer alone would break ties by chance.

    Few enough that most Hangul syllables have no piece and fall back to bytes.
    """
    counts = Counter("".join(CORPUS).replace(" ", "▁"))
    return sorted(sorted(counts, key=lambda character: (-counts[character], character))[:num_characters])


def save_byte_level_tokenizer(
    folder: Path,
    vocab_size: int = 512,
    *,
    chat_template: str | None = CHATML_TEMPLATE,
    eos_token: str | None = "<|im_end|>",
) -> Tokenizer:
    """Writes tokenizer.json and tokenizer_config.json; there is no BOS."""
    tokenizer = build_byte_level_tokenizer(vocab_size)
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": eos_token,
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
    }
    save_tokenizer(folder, tokenizer, config, chat_template)
    return tokenizer


def save_sentencepiece_tokenizer(
    folder: Path, vocab_size: int = 512, *, chat_template: str | None = INST_TEMPLATE
) -> Tokenizer:
    """Writes tokenizer.json and tokenizer_config.json; bos is <s>, eos is </s>, as in Llama-2."""
    tokenizer = build_sentencepiece_tokenizer(vocab_size)
    config: dict[str, Any] = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
    }
    save_tokenizer(folder, tokenizer, config, chat_template)
    return tokenizer


def save_tokenizer(
    folder: Path, tokenizer: Tokenizer, config: dict[str, Any], chat_template: str | None = None
) -> None:
    """A tokenizer's half of a Hugging Face model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    with_template = config if chat_template is None else {**config, "chat_template": chat_template}
    (folder / "tokenizer_config.json").write_text(
        json.dumps(with_template, ensure_ascii=False), encoding="utf-8"
    )
