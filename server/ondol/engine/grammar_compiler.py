"""Turns grammars into matchers, in threads, while the engine goes on stepping.

A request waits here until its matcher is there or its time is over; nobody else waits with it. Knows the
model folder's tokenizer, nothing about tensors. Invariant: a request is here or in the scheduler, never
in both.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import transformers
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer

from ondol.config.grammar_limits import parser_limits
from ondol.engine.grammar import TokenMatcher
from ondol.engine.request import Request

COMPILE_TIMEOUT_S = 10.0
NUM_THREADS = 2


class GrammarCompiler:
    """Builds matchers for one model's tokenizer.

    Args:
        folder: the model's, in Hugging Face layout.
        vocab_size: columns of the model's logits; the tokenizer may know fewer ids, or more.
        end_token_ids: ids that may follow a finished text.
    """

    def __init__(self, folder: Path, vocab_size: int, end_token_ids: frozenset[int]) -> None:
        self._folder = folder
        self._vocab_size = vocab_size
        self._end_token_ids = sorted(token for token in end_token_ids if token < vocab_size)
        self._lock = Lock()

    def compile(self, grammar: str, output_ids: list[int]) -> TokenMatcher:
        """A matcher that has taken in `output_ids`; its `error` tells what is wrong with the grammar.

        Blocks: for a second or two at the first call, which reads the tokenizer.
        """
        with self._lock:
            tokenizer = self._tokenizer
        matcher = TokenMatcher(
            LLMatcher(tokenizer, grammar, log_level=0, limits=parser_limits()), tokenizer.vocab_size
        )
        if output_ids:
            matcher.advance(output_ids)
        matcher.probe()
        return matcher

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        backend = _load_tokenizer(self._folder)
        # A model without an end token ends with its grammar; where that may also go on, some special
        # token, which shows no text, stands for the end.
        end_token_ids = self._end_token_ids or backend.all_special_ids[:1]
        return from_tokenizer(backend, max(self._vocab_size, len(backend)), end_token_ids)


def _load_tokenizer(folder: Path) -> Any:  # noqa: ANN401 - transformers is untyped here
    """The ids are the folder's own either way; splitting rules do not matter to a grammar."""
    has_file = (folder / "tokenizer.json").is_file()
    loader = transformers.PreTrainedTokenizerFast if has_file else transformers.AutoTokenizer
    return loader.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


@dataclass(frozen=True, slots=True)
class _Compiling:
    request: Request
    future: "Future[TokenMatcher]"
    deadline_s: float


class GrammarQueue:
    """Requests whose grammars are being compiled.

    Args:
        compile_grammar: `GrammarCompiler.compile`, or a test's.
        timeout_s: how long a request waits for its matcher.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        compile_grammar: Callable[[str, list[int]], TokenMatcher],
        *,
        timeout_s: float = COMPILE_TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._compile = compile_grammar
        self._timeout_s = timeout_s
        self._clock = clock
        self._pool = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="grammar-compiler")
        self._compiling: dict[str, _Compiling] = {}

    def __len__(self) -> int:
        return len(self._compiling)

    def add(self, request: Request) -> None:
        """Begin to compile the request's grammar."""
        assert request.params.grammar is not None, "only constrained requests wait here"
        future = self._pool.submit(self._compile, request.params.grammar, request.output_ids())
        self._compiling[request.request_id] = _Compiling(request, future, self._clock() + self._timeout_s)

    def remove(self, request_id: str) -> None:
        """Forget a request; unknown ids are ignored."""
        entry = self._compiling.pop(request_id, None)
        if entry is not None:
            entry.future.cancel()

    def take_done(self) -> Iterator[tuple[Request, str | None]]:
        """Requests that need not wait any more, each with the reason why it cannot run, if so."""
        for request_id, entry in list(self._compiling.items()):
            if entry.future.done():
                del self._compiling[request_id]
                yield entry.request, _take_matcher(entry)
            elif self._clock() >= entry.deadline_s:
                self.remove(request_id)
                yield entry.request, f"its grammar was not compiled within {self._timeout_s:.0f} s"


def _take_matcher(entry: _Compiling) -> str | None:
    """Hand the matcher to its request; the reason if there is none."""
    failure = entry.future.exception()
    if failure is not None:
        return f"this model's tokenizer cannot be used with a grammar: {failure}"
    matcher = entry.future.result()
    if matcher.error is not None:
        return f"the grammar cannot be used: {matcher.error}"
    entry.request.matcher = matcher
    return None
