"""One model's tokenizer: text to ids, ids to text, chat template, end tokens.

Loaded from a folder in Hugging Face layout, never by code from that folder. tokenizer.json is taken
to the letter: the Transformers library's model-specific classes rebuild the splitting rules from
their own idea of the family (GPT2Tokenizer loses SmolLM2's digit splitting, LlamaTokenizer Llama-2's
space after <s>), so they serve only folders without that file. Knows nothing about the engine.

Invariant: BOS exactly once. Rendered templates are encoded without special tokens, for a template
writes its own; plain text is encoded with them.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer

from ondol.errors import InvalidRequest, ModelRefused, NoChatTemplate
from ondol.text.chat_template import ChatTemplate, Message, Tool, merge_system
from ondol.text.detokenizer import IncrementalDetokenizer
from ondol.text.token_bytes import TokenBytes

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")
GENERATION_FILES = ("generation_config.json", "config.json")


class TextTokenizer:
    """Thread-safe; encoding a long text takes long, so callers keep it off the event loop.

    Attributes:
        token_bytes: visible bytes by id.
        chat_template: None for base models.
        end_token_ids: every id that ends an answer, sorted: the eos ids of generation_config.json,
            config.json and the tokenizer, and the token that ends a turn in the chat template.
        vocab_size: one more than the highest id of the vocabulary; models may have more rows.
        merges_system_prompt: whether a system message goes into the first user's text where the
            template knows no system role.
    """

    def __init__(
        self,
        backend: Tokenizer,
        chat_template: ChatTemplate | None = None,
        end_token_ids: Sequence[int] = (),
        *,
        merges_system_prompt: bool = True,
    ) -> None:
        # A length limit left in tokenizer.json by its training would cut prompts silently.
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.token_bytes = TokenBytes.of(backend)
        self.vocab_size = len(self.token_bytes)
        self.chat_template = chat_template
        self.merges_system_prompt = merges_system_prompt
        self.end_token_ids = tuple(sorted({*end_token_ids, *_end_of_turn_ids(backend, chat_template)}))

    @classmethod
    def load(
        cls, folder: Path, *, chat_template: str | None = None, merges_system_prompt: bool = True
    ) -> "TextTokenizer":
        """Read a model folder's tokenizer; `chat_template` is used instead of the folder's own.

        Raises ModelRefused with a one-line reason if the folder holds no tokenizer Ondol can run.
        """
        _refuse_remote_code(folder)
        loaded = _load_fast_tokenizer(folder)
        source = chat_template or _default_template(loaded.chat_template)
        template = None if source is None else ChatTemplate(source, loaded.special_tokens_map)
        eos_ids = _configured_eos_ids(folder)
        if loaded.eos_token_id is not None:
            eos_ids.append(loaded.eos_token_id)
        return cls(loaded.backend_tokenizer, template, eos_ids, merges_system_prompt=merges_system_prompt)

    def render_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        add_generation_prompt: bool = True,
        continues_final_message: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> str:
        """Prompt text of a conversation; see `ChatTemplate.render` and `render_open_end`.

        Raises InvalidRequest if there is no template or it refuses.
        """
        template = self.chat_template
        if template is None:
            raise NoChatTemplate
        if self.merges_system_prompt and not template.takes_system:
            messages = merge_system(messages)
        if continues_final_message:
            return template.render_open_end(messages, tools=tools, arguments=arguments)
        return template.render(
            messages, tools=tools, add_generation_prompt=add_generation_prompt, arguments=arguments
        )

    def special_token_id(self, content: str) -> int | None:
        """The id of a special token, which the visible text leaves out; None for any other text."""
        token_id: int | None = self._backend.token_to_id(content)
        added = self._backend.get_added_tokens_decoder()
        return token_id if token_id in added and added[token_id].special else None

    def piece_bytes(self, token_id: int) -> bytes:
        """What a token is called: its visible bytes, or the name of a special token in UTF-8."""
        visible = self.token_bytes[token_id]
        return visible or (self._backend.id_to_token(token_id) or "").encode("utf-8")

    def piece(self, token_id: int) -> str:
        """The token as the vocabulary writes it; "" for an id without one."""
        return self._backend.id_to_token(token_id) or ""

    def is_special(self, token_id: int) -> bool:
        """Whether the visible text leaves this token out."""
        added = self._backend.get_added_tokens_decoder()
        return token_id in added and bool(added[token_id].special)

    def encode_rendered(self, text: str) -> list[int]:
        """Ids of a rendered chat template, which writes its own special tokens."""
        return self._encode(text, add_special_tokens=False)

    def encode_text(self, text: str) -> list[int]:
        """Ids of plain text, with BOS if the model wants one."""
        return self._encode(text, add_special_tokens=True)

    def detokenizer(
        self, *, is_continuation: bool = False, shown_token_ids: Collection[int] = ()
    ) -> IncrementalDetokenizer:
        """A detokenizer for one output.

        Args:
            is_continuation: keeps the first word's leading space.
            shown_token_ids: special tokens that belong to the text.
        """
        shown = {token_id: self.piece_bytes(token_id) for token_id in shown_token_ids}
        return IncrementalDetokenizer(self.token_bytes, is_continuation=is_continuation, shown=shown)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The full decode: visible text, equal to what any series of deltas adds up to."""
        detokenizer = self.detokenizer()
        return detokenizer.push(token_ids) + detokenizer.flush()

    def _encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        try:
            ids: list[int] = self._backend.encode(text, add_special_tokens=add_special_tokens).ids
        except TypeError as error:  # JSON can carry half of a surrogate pair, UTF-8 cannot
            raise InvalidRequest("The text is not valid Unicode: it holds a lone surrogate.") from error
        return ids


def _refuse_remote_code(folder: Path) -> None:
    auto_map = _read_json(folder / "tokenizer_config.json").get("auto_map") or {}
    if "AutoTokenizer" in auto_map:
        raise ModelRefused(
            f"{folder}: the tokenizer needs code from the model folder, which Ondol never runs."
        )


def _load_fast_tokenizer(folder: Path) -> Any:  # noqa: ANN401 - transformers is untyped here
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelRefused(f"{folder}: no tokenizer found ({', '.join(TOKENIZER_FILES)}).")
    loader, options = transformers.PreTrainedTokenizerFast, {}
    if not (folder / "tokenizer.json").is_file():
        # AutoTokenizer also imports torch, which the API process can do without.
        loader, options = transformers.AutoTokenizer, _conversion_options(folder)
    try:
        loaded = loader.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, **options
        )
    except Exception as error:  # the library raises bare Exception for a corrupt file
        raise ModelRefused(f"{folder}: the tokenizer cannot be read: {_first_line(error)}") from error
    if not loaded.is_fast:
        raise ModelRefused(f"{folder}: the tokenizer has no fast form; save it with a tokenizer.json.")
    return loaded


def _conversion_options(folder: Path) -> dict[str, bool]:
    """Settings that a sentencepiece model without tokenizer.json leaves open.

    Llama, Mistral and Gemma were trained with BOS in front; Transformers 5 leaves it out unless told.
    """
    is_stated = "add_bos_token" in _read_json(folder / "tokenizer_config.json")
    is_sentencepiece = (folder / "tokenizer.model").is_file()
    return {"add_bos_token": True} if is_sentencepiece and not is_stated else {}


def _default_template(templates: str | dict[str, str] | None) -> str | None:
    """The template itself, or the one named "default" of several."""
    return templates.get("default") if isinstance(templates, dict) else templates


def _configured_eos_ids(folder: Path) -> list[int]:
    """eos_token_id of generation_config.json and config.json: an id, a list of ids, or absent."""
    eos_ids: list[int] = []
    for name in GENERATION_FILES:
        configured = _read_json(folder / name).get("eos_token_id")
        if configured is not None:
            eos_ids.extend(configured if isinstance(configured, list) else [configured])
    return eos_ids


def _end_of_turn_ids(backend: Tokenizer, chat_template: ChatTemplate | None) -> list[int]:
    """The added token that the template writes right after an assistant's message, if it does.

    Found by rendering a conversation, so no list of known names can be out of date or match by chance.
    """
    tail = chat_template.text_after_reply().lstrip() if chat_template is not None else ""
    added = backend.get_added_tokens_decoder()
    matching = [
        token_id for token_id, token in added.items() if token.content and tail.startswith(token.content)
    ]
    return [max(matching, key=lambda token_id: len(added[token_id].content))] if matching else []


def _read_json(path: Path) -> dict[str, Any]:
    """{} if there is no such file; raises ModelRefused if it does not hold a JSON object."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelRefused(f"{path}: not valid JSON: {_first_line(error)}") from error
    if not isinstance(content, dict):
        raise ModelRefused(f"{path}: not a JSON object.")
    return content


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
