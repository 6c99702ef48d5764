"""How one request wants its tokens chosen and when it ends.

The engine's half of a request's parameters: everything here is a number or a token id. Stop
*strings* belong to the text room. Ranges are checked at the front door (`api/`).
"""

import msgspec


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sampling parameters of one choice of one request.

    Attributes:
        max_tokens: most tokens to generate, already clipped to what is left of the context; 0 computes
            the prompt alone.
        temperature: 0 (or below 1e-5) is greedy; else logits are divided by it.
        top_k: keep the k most likely tokens; 0 keeps all.
        top_p: keep the smallest set whose probability reaches this; 1.0 keeps all.
        min_p: drop tokens less likely than this share of the likeliest one.
        repetition_penalty: CTRL's multiplicative penalty over prompt and output (arXiv:1909.05858).
        presence_penalty, frequency_penalty: OpenAI's additive penalties over the output.
        logit_bias: (token id, additive bias) pairs.
        seed: any 64-bit integer; the same seed replays the same tokens in any batch.
        choice: index of this choice among the request's n; part of the random stream's key.
        min_tokens: end tokens are impossible before this many tokens.
        ignore_eos: generate through the model's end tokens.
        stop_token_ids: further end tokens of this request.
        logprobs: alternatives reported beside each output token's log-probability; 0 reports the chosen
            token's alone, None nothing.
        prompt_logprobs: the same for the prompt's tokens; such a request reads no cached prefix.
        grammar: llguidance's grammar text that the output must match; see `text/structured_output.py`.
    """

    max_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int = 0
    choice: int = 0
    min_tokens: int = 0
    ignore_eos: bool = False
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    grammar: str | None = None

    @property
    def reads_output(self) -> bool:
        """Whether the choice of a token depends on which tokens came before, beyond their number."""
        return bool(self.presence_penalty or self.frequency_penalty) or self.repetition_penalty != 1.0
