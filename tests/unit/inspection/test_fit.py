import json

import pytest
import torch
from support.checkpoints import save_checkpoint
from support.packers import GPTQ, pack_checkpoint

from ondol.engine.kv_cache import CPU_LIMIT_BYTES
from ondol.inspection.fit import Question, measure_fit
from ondol.inspection.machine import Machine, described_machine, this_machine
from ondol.inspection.outline import open_outline
from ondol.modeling.loading import load_model
from ondol.modeling.quantization.on_load import OnLoad

CPU = torch.device("cpu")
FORMS = {
    "fp32": ("float32", None),
    "fp16": ("bfloat16", None),
    "int8": ("float32", OnLoad("int8")),
    "nf4": ("float32", OnLoad("nf4")),
    "nf4-double": ("float32", OnLoad("nf4", use_double_quant=True)),
}
LARGE = Machine("cpu", "", 10**12, 10**12)
CONTEXT = 64
# 3 layers, 2 kv heads of 16, keys and values in float32
TOKEN_BYTES = 2 * 3 * 2 * 16 * 4


@pytest.fixture(scope="module", params=["llama", "qwen2_moe", "qwen3"])
def family(request, tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp(request.param) / "tiny", request.param)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("fit") / "tiny", "llama")


def fit(folder, machine=LARGE, **question):
    with open_outline(str(folder), folder / "home") as outline:
        return measure_fit(outline, machine, Question(**{"context": CONTEXT, **question}))


def forms(report):
    return {form.form: form for form in report.forms}


def machine_of(usable_bytes):
    return Machine("cpu", "", usable_bytes, usable_bytes)


def test_weights_are_those_of_a_real_load_to_the_byte(family):
    measured = forms(fit(family))
    for name, (dtype, on_load) in FORMS.items():
        loaded = load_model(family, CPU, dtype, on_load=on_load)
        assert measured[name].weights_bytes == loaded.weights_bytes, name
        quantized = [
            stored.num_bytes for stored in loaded.report.stored if stored.kind == name.removesuffix("-double")
        ]
        assert measured[name].quantized_bytes == sum(quantized if on_load else []), name
    assert measured["published"].weights_bytes == measured["fp32"].weights_bytes


def test_a_quantized_checkpoint_is_exact_as_published_and_shows_its_original(tmp_path):
    packed, _ = pack_checkpoint(tmp_path, "llama", GPTQ(group_size=32))
    report = fit(packed)
    assert forms(report)["published"].weights_bytes == load_model(packed, CPU, "float32").weights_bytes
    assert forms(report)["published"].method == "gptq"
    assert (
        forms(report)["nf4"].weights_bytes
        == load_model(tmp_path / "source", CPU, "float32", on_load=OnLoad("nf4")).weights_bytes
    )
    assert report.best_form == "published"
    assert report.facts.quantization == "gptq 4-bit"


def test_the_cache_counts_whole_blocks_of_every_request(tiny):
    form = forms(fit(tiny, context=17, concurrency=3))["fp32"]
    assert form.kv_bytes_per_token == TOKEN_BYTES
    assert form.kv_cache_bytes == 3 * 32 * TOKEN_BYTES
    assert form.total_bytes == form.weights_bytes + form.kv_cache_bytes + form.workspace_bytes


def test_keys_and_values_may_be_asked_for_in_another_dtype(tiny):
    form = forms(fit(tiny, kv_dtype="float16"))["fp32"]
    assert (form.kv_dtype, form.kv_bytes_per_token) == ("float16", TOKEN_BYTES // 2)


def test_8_bit_keys_and_values_are_counted_with_their_scales(tiny):
    form = forms(fit(tiny, kv_dtype="fp8"))["fp16"]
    assert (form.kv_dtype, form.kv_bytes_per_token) == ("fp8", TOKEN_BYTES // (4 * 16) * (16 + 2))


def test_the_largest_context_and_concurrency_fit_and_one_more_does_not(tiny):
    usable_bytes = forms(fit(tiny, context=200, concurrency=2))["fp32"].total_bytes
    machine = machine_of(usable_bytes)
    form = forms(fit(tiny, machine, concurrency=2))["fp32"]
    assert form.fits
    assert 200 <= form.max_context < 512
    assert forms(fit(tiny, machine, context=form.max_context, concurrency=2))["fp32"].fits
    assert not forms(fit(tiny, machine, context=form.max_context + 1, concurrency=2))["fp32"].fits
    assert form.max_concurrency > 2
    assert forms(fit(tiny, machine, concurrency=form.max_concurrency))["fp32"].fits
    assert not forms(fit(tiny, machine, concurrency=form.max_concurrency + 1))["fp32"].fits


def test_the_best_form_is_the_most_precise_that_fits(tiny):
    sizes = {name: form.total_bytes for name, form in forms(fit(tiny)).items()}
    assert fit(tiny, machine_of(sizes["fp32"])).best_form == "fp32"
    assert fit(tiny, machine_of(sizes["fp32"] - 1)).best_form == "fp16"
    nothing = fit(tiny, machine_of(1000))
    assert nothing.best_form is None
    assert all(form.max_context == form.max_concurrency == 0 for form in nothing.forms)


def test_8_bit_keys_and_values_that_would_make_it_fit_are_told(tiny):
    wide, narrow = (fit(tiny, concurrency=200, kv_dtype=dtype) for dtype in ("float32", "fp8"))
    machine = machine_of((forms(wide)["nf4-double"].total_bytes + forms(narrow)["fp32"].total_bytes) // 2)
    report = fit(tiny, machine, concurrency=200, kv_dtype="float32")
    assert (report.best_form, report.best_with_fp8_kv) == (None, "fp32")
    assert fit(tiny, machine, concurrency=200, kv_dtype="fp8").best_form == "fp32"
    assert fit(tiny, machine_of(0)).best_with_fp8_kv is None


def test_where_nothing_fits_the_form_that_goes_furthest_is_told(tiny):
    limit_bytes = forms(fit(tiny, concurrency=50))["nf4"].total_bytes
    report = fit(tiny, machine_of(limit_bytes), concurrency=200)
    assert report.best_form is None
    furthest = report.furthest(lambda form: form.max_concurrency)
    assert furthest.max_concurrency == max(form.max_concurrency for form in report.forms) >= 50
    assert fit(tiny, machine_of(0)).furthest(lambda form: form.max_context) is None


def test_deterministic_mode_takes_more_workspace_on_a_cpu_only(tiny):
    def workspaces(machine):
        plain, ordered = (forms(fit(tiny, machine, is_deterministic=asked)) for asked in (False, True))
        return plain["fp32"].workspace_bytes, ordered["fp32"].workspace_bytes

    plain_bytes, ordered_bytes = workspaces(LARGE)
    assert ordered_bytes > plain_bytes
    plain_bytes, ordered_bytes = workspaces(card_of(10**12))
    assert ordered_bytes == plain_bytes


def test_without_an_asked_context_the_model_own_counts(tiny):
    assert fit(tiny, context=None).context == 512


def test_what_is_not_quantized_has_the_dtype_that_an_engine_chooses(tiny):
    def dtypes(device):
        return {form.form: form.dtype for form in fit(tiny, described_machine(10**9, device)).forms}

    # The tiny checkpoint is stored in float32, which an engine keeps on every device.
    assert dtypes("cpu")["int8"] == dtypes("cuda")["int8"] == "float32"
    config = json.loads((tiny / "config.json").read_text())
    half = tiny.parent / "half"
    half.mkdir()
    (half / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))
    asked = {form.form: form.dtype for form in fit(half, described_machine(10**9, "cuda")).forms}
    assert asked["int8"] == asked["fp16"] == asked["published"] == "float16"


def test_a_described_card_leaves_the_share_that_an_engine_leaves():
    assert described_machine(1000, "cuda").usable_bytes == 900


def test_an_engine_on_this_cpu_limits_its_cache_unless_it_is_asked_for_more():
    machine = this_machine(CPU)
    assert machine.kv_limit_bytes is not None
    assert 0 < machine.kv_limit_bytes <= min(CPU_LIMIT_BYTES, machine.usable_bytes)


def test_this_machine_has_no_more_to_use_than_it_has():
    machine = this_machine(CPU)
    assert 0 < machine.usable_bytes < machine.total_bytes


def test_the_report_for_programs_keeps_its_keys(tiny):
    report = json.loads(json.dumps(fit(tiny).to_json()))
    assert list(report) == [
        "model",
        "origin",
        "licence",
        "quantization",
        "context",
        "concurrency",
        "context_length",
        "num_parameters",
        "num_active_parameters",
        "device",
        "forms",
        "fits",
        "best_form",
    ]
    assert report["device"] == {
        "kind": "cpu",
        "name": "",
        "total_bytes": 10**12,
        "usable_bytes": 10**12,
        "host_bytes": 0,
        "kv_limit_bytes": None,
    }
    assert list(report["forms"][0]) == [
        "form",
        "method",
        "dtype",
        "kv_dtype",
        "weights_bytes",
        "quantized_bytes",
        "bits_per_parameter",
        "kv_bytes_per_token",
        "kv_cache_bytes",
        "workspace_bytes",
        "total_bytes",
        "fits",
        "fits_with_fp8_kv",
        "max_context",
        "max_concurrency",
        "host_bytes",
        "offload_needed_bytes",
        "offload_tokens_per_s",
    ]


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("deep") / "tiny", "llama", num_hidden_layers=8)


def card_of(usable_bytes, host_bytes=10**12):
    return Machine("cuda", "", usable_bytes, usable_bytes, host_bytes)


def test_a_card_that_is_too_small_is_told_the_least_offload_with_which_each_form_fits(deep):
    whole = forms(fit(deep, card_of(10**12)))
    assert all(form.offload_needed_bytes is None for form in whole.values())
    usable_bytes = whole["fp16"].total_bytes - 1
    small = forms(fit(deep, card_of(usable_bytes)))
    for name in ("fp32", "fp16"):
        needed_bytes = small[name].offload_needed_bytes
        offloaded = forms(fit(deep, card_of(usable_bytes), offload_bytes=needed_bytes))[name]
        assert offloaded.fits
        assert offloaded.host_bytes == needed_bytes
        assert not forms(fit(deep, card_of(usable_bytes), offload_bytes=needed_bytes - 1))[name].fits
        # What is asked for already does not change what is needed.
        assert offloaded.offload_needed_bytes == needed_bytes


def test_the_last_resort_is_the_form_with_the_least_in_host_memory(deep):
    smallest = min(form.total_bytes for form in fit(deep, card_of(10**12)).forms)
    report = fit(deep, card_of(smallest - 1))
    assert report.best_form is None
    assert report.last_resort is not None
    needed = [form.offload_needed_bytes for form in report.forms if form.offload_needed_bytes is not None]
    assert report.last_resort.offload_needed_bytes == min(needed)
    assert fit(deep, card_of(10**12)).last_resort is None
    assert fit(deep, card_of(1000)).last_resort is None


def test_host_memory_that_is_not_there_helps_nobody(deep):
    usable_bytes = forms(fit(deep, card_of(10**12)))["fp32"].total_bytes - 1
    assert forms(fit(deep, card_of(usable_bytes, host_bytes=1000)))["fp32"].offload_needed_bytes is None
    asked = forms(fit(deep, card_of(10**12, host_bytes=1000), offload_bytes=10**9))["fp32"]
    assert asked.host_bytes > 1000
    assert not asked.fits


def test_the_bus_bounds_the_tokens_of_an_answer(deep):
    asked = forms(fit(deep, card_of(10**12), offload_bytes=10**9))["fp32"]
    assert asked.offload_tokens_per_s == round(25e9 / asked.host_bytes, 3)
    assert forms(fit(deep, card_of(10**12)))["fp32"].offload_tokens_per_s is None


def test_a_cpu_offloads_to_itself_and_saves_nothing(deep):
    asked = forms(fit(deep, LARGE, offload_bytes=10**9))["fp32"]
    assert asked.host_bytes == 0
    assert asked.total_bytes > forms(fit(deep, LARGE))["fp32"].total_bytes
