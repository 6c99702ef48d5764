"""What a KV cache of 8-bit floating point costs in quality: one model, two texts, on the CPU.

Keys and values are written and read back by the torch reference, whose codes the kernels share. Says nothing
about speed. Prints a table on stderr and one JSON object as the last line on stdout.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch

from ondol.bench.provenance import model_record, provenance
from ondol.engine.kv_cache import KVShape, kv_dtype_name
from ondol.kernels.kv_layer import FLOAT8
from ondol.modeling.fidelity import LANGUAGES, MAX_TOKENS, compare, reference_text, whole_prompt_logits
from ondol.modeling.loading import LoadedWeights, load_model
from ondol.text.tokenizer import TextTokenizer


def measure(weights: LoadedWeights, tokenizer: TextTokenizer) -> dict[str, Any]:
    """Logits and perplexity of each text over both caches; the model's own dtype is the source."""
    num_tokens = min(MAX_TOKENS, weights.context_length)
    prompts = {
        language: tokenizer.encode_text(reference_text(language))[:num_tokens] for language in LANGUAGES
    }
    return {
        language: asdict(
            compare(
                whole_prompt_logits(weights, token_ids),
                whole_prompt_logits(weights, token_ids, FLOAT8),
                token_ids,
            )
        )
        for language, token_ids in prompts.items()
    }


@click.command()
@click.option("--model-folder", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON there too.")
def main(model_folder: Path, output: Path | None) -> None:
    """Compare a cache of 8 bits with one of the model's dtype, float32."""
    weights = load_model(model_folder, torch.device("cpu"), "float32")
    shape = KVShape(weights.num_layers, weights.num_kv_heads, weights.head_dim)
    token_bytes = {kv_dtype_name(dtype): shape.bytes_per_token(dtype) for dtype in (weights.dtype, FLOAT8)}
    report = {
        **provenance(("torch",)),
        "model_record": model_record(model_folder),
        "kv_bytes_per_token": token_bytes,
        "error": measure(weights, TextTokenizer.load(model_folder)),
    }
    for language, figures in report["error"].items():
        click.echo(
            f"{language:<8} logit error {figures['relative_logit_error']:.4f}, perplexity "
            f"{figures['source_perplexity']:.3f} -> {figures['perplexity']:.3f}, same likeliest token "
            f"{figures['same_top_token']:.1%} of {figures['num_tokens']}",
            err=True,
        )
    if output is not None:
        output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    click.echo(json.dumps(report, ensure_ascii=False))


if __name__ == "__main__":
    main()
