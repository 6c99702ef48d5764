import math

import pytest
import torch
from support.checkpoints import reference_model, save_checkpoint

from ondol.modeling.fidelity import LANGUAGES, compare, reference_text, whole_prompt_logits
from ondol.modeling.loading import load_model

TOKEN_IDS = [(37 * index * index + 11) % 500 for index in range(70)]


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2_moe", "qwen3"])
def test_logits_of_a_whole_prompt_equal_transformers(family, tmp_path):
    folder = save_checkpoint(tmp_path, family)
    logits = whole_prompt_logits(load_model(folder, torch.device("cpu"), "float32"), TOKEN_IDS)
    with torch.no_grad():
        expected = reference_model(folder)(torch.tensor([TOKEN_IDS])).logits[0]
    torch.testing.assert_close(logits, expected, rtol=2e-4, atol=2e-4)


def test_a_model_compared_with_itself_has_no_error():
    logits = torch.randn(9, 20, generator=torch.Generator().manual_seed(1))
    figures = compare(logits, logits.clone(), TOKEN_IDS_OF_20)
    assert (figures.relative_logit_error, figures.perplexity_difference, figures.same_top_token) == (0, 0, 1)
    assert figures.num_tokens == 8


def test_a_shift_of_all_logits_of_a_position_is_no_error():
    logits = torch.randn(9, 20, generator=torch.Generator().manual_seed(2))
    figures = compare(logits, logits + torch.arange(9.0)[:, None], TOKEN_IDS_OF_20)
    assert figures.relative_logit_error == pytest.approx(0, abs=1e-5)
    assert figures.perplexity == pytest.approx(figures.source_perplexity, rel=1e-5)


def test_figures_follow_their_definitions():
    generator = torch.Generator().manual_seed(3)
    source, found = torch.randn(2, 9, 20, generator=generator, dtype=torch.float64)
    figures = compare(source.float(), found.float(), TOKEN_IDS_OF_20)
    losses = [
        math.log(sum(math.exp(value) for value in row)) - float(row[token])
        for row, token in zip(found, TOKEN_IDS_OF_20[1:], strict=False)
    ]
    assert figures.perplexity == pytest.approx(math.exp(sum(losses) / 8), rel=1e-5)
    squares, scale = 0.0, 0.0
    for row, other in zip(source, found, strict=True):
        centred = [float(value - row.mean()) for value in row]
        other_centred = [float(value - other.mean()) for value in other]
        squares += sum((a - b) ** 2 for a, b in zip(centred, other_centred, strict=True))
        scale += sum(a * a for a in centred)
    assert figures.relative_logit_error == pytest.approx(math.sqrt(squares / scale), rel=1e-5)
    agreed = sum(int(a.argmax()) == int(b.argmax()) for a, b in zip(source, found, strict=True))
    assert figures.same_top_token == pytest.approx(agreed / 9)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_text_of_each_language_comes_with_the_package(language):
    text = reference_text(language)
    assert len(text.split()) > 250
    hangul = sum("가" <= character <= "힣" for character in text) / len(text)
    assert hangul > 0.5 if language == "korean" else hangul == 0


TOKEN_IDS_OF_20 = [3, 1, 4, 1, 5, 9, 2, 6, 19]
