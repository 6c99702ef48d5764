"""`ondol inspect MODEL`: what a model is made of, module by module.

Knows flags and the terminal. Invariant: stdout is the report and nothing else; without `--loaded` no
weight is read.
"""

import json
from dataclasses import asdict
from pathlib import Path

import click

from ondol.cli.flags import settings_options
from ondol.cli.language import tr
from ondol.cli.sizes import memory_size
from ondol.config import Settings, load_settings
from ondol.engine.messages import EngineConfig, QuantizationConfig
from ondol.engine.quantization import plan_on_load
from ondol.engine.worker import choose_device
from ondol.errors import ModelRefused
from ondol.inspection.facts import ModelFacts, read_facts
from ondol.inspection.live_tree import live_tree
from ondol.inspection.outline import ModelOutline, open_outline
from ondol.inspection.published_tree import published_tree
from ondol.inspection.tree import TreeNode, tree_lines
from ondol.modeling.loading import DTYPES, LoadedWeights, load_model

LOAD_SETTINGS = (
    "device",
    "dtype",
    "quantization",
    "quantize_lm_head",
    "bnb_4bit_use_double_quant",
    "bnb_4bit_compute_dtype",
    "bnb_4bit_quant_storage",
    "llm_int8_skip_modules",
)


@click.command("inspect")
@click.argument("model")
@click.option("--loaded", is_flag=True, help="Load it, and show what lies in memory instead.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@settings_options("home", *LOAD_SETTINGS)
def inspect_command(model: str, loaded: bool, as_json: bool, **flags: object) -> None:
    """Show the modules of MODEL (a folder, a Hub id or a catalog name) and how each is stored.

    From config.json and the headers of the weights: classes as in transformers, in -> out, dtype, bits and
    bytes. With --loaded the model is loaded as the daemon would (the flags below are for this), and the
    classes and tensors in memory are shown, beside them what bitsandbytes would hold.

    \b
    Example:
      ondol inspect qwen1.5-moe-a2.7b-chat-gptq-int4
      ondol inspect starter --loaded --quantization nf4
    """
    settings = load_settings(flags)
    with open_outline(model, settings.home) as outline:
        facts = read_facts(outline)
        if loaded:
            weights = _load(outline, settings)
            tree, dtype = live_tree(weights), str(weights.dtype).removeprefix("torch.")
        else:
            tree = published_tree(outline, facts)
            dtype = facts.stored_dtype if facts.stored_dtype in DTYPES else "float32"
    kv_bytes_per_token = facts.kv_bytes_per_token(DTYPES[dtype])
    if as_json:
        described = {**asdict(facts), "kv_dtype": dtype, "kv_bytes_per_token": kv_bytes_per_token}
        report = {"facts": described, "is_loaded": loaded, "tree": tree.to_json()}
        print(json.dumps(report, indent=2, ensure_ascii=False))
        return
    print("\n".join([*_facts(facts, tree), _kv_cache(kv_bytes_per_token, dtype), ""]))
    print("\n".join(tree_lines(tree, memory_size)))


def _load(outline: ModelOutline, settings: Settings) -> LoadedWeights:
    if not outline.has_contents or outline.checkpoint() is None:
        raise ModelRefused(
            f"the weights of {outline.name} are not on this machine: run `ondol pull` first, or leave out "
            "--loaded."
        )
    device = choose_device(settings.device)
    config = EngineConfig(
        model_path=str(outline.folder),
        device=settings.device,
        dtype=settings.dtype,
        quantization=QuantizationConfig(**asdict(settings.engine().quantization)),
    )
    on_load, notes = plan_on_load(config, device)
    loaded = load_model(Path(outline.folder), device, settings.dtype, on_load=on_load)
    for note in (*notes, *loaded.notes):
        click.echo(note, err=True)
    return loaded


def _facts(facts: ModelFacts, tree: TreeNode) -> list[str]:
    lines = [
        f"{facts.name}: {facts.architecture}",
        tr("Parameters: {total}", total=f"{facts.num_parameters:,}"),
        tr("Stored: {size}", size=memory_size(tree.num_bytes)),
        tr(
            "Context: {context_length} tokens, rope {rope}",
            context_length=facts.context_length,
            rope=facts.rope,
        ),
    ]
    if facts.experts is not None:
        lines[1] = tr(
            "Parameters: {total}, {active} active for each token",
            total=f"{facts.num_parameters:,}",
            active=f"{facts.num_active_parameters:,}",
        )
        lines.append(
            tr(
                "Experts: {num_experts} routed of width {width}, {num_active} for each token; one shared of "
                "width {shared_width}",
                num_experts=facts.experts.num_experts,
                width=facts.experts.intermediate_size,
                num_active=facts.experts.num_experts_per_token,
                shared_width=facts.experts.shared_intermediate_size,
            )
        )
    if facts.quantization:
        lines[2] += tr(", quantized: {quantization}", quantization=facts.quantization)
    return lines


def _kv_cache(kv_bytes_per_token: int, dtype: str) -> str:
    return tr("KV cache: {size} per token in {dtype}", size=memory_size(kv_bytes_per_token), dtype=dtype)
