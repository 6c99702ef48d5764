"""Greedy text of a loaded model, the plain way: the whole prompt again for every token."""

from ondol.modeling.fidelity import whole_prompt_logits
from ondol.modeling.loading import LoadedWeights


def greedy_tokens(weights: LoadedWeights, prompt_ids: list[int], num_tokens: int) -> list[int]:
    token_ids = list(prompt_ids)
    for _ in range(num_tokens):
        token_ids.append(int(whole_prompt_logits(weights, token_ids)[-1].argmax()))
    return token_ids[len(prompt_ids) :]
