import json

from click.testing import CliRunner
from support.checkpoints import save_checkpoint
from support.tokenizers import save_byte_level_tokenizer

from benchmarks import kv_cache


def test_both_caches_are_compared_on_every_text(tmp_path):
    folder = save_checkpoint(tmp_path, "llama")
    save_byte_level_tokenizer(folder)
    output = tmp_path / "figures.json"
    done = CliRunner().invoke(kv_cache.main, ["--model-folder", str(folder), "--output", str(output)])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout.splitlines()[-1])
    assert report == json.loads(output.read_text(encoding="utf-8"))
    assert report["kv_bytes_per_token"]["fp8"] < report["kv_bytes_per_token"]["float32"] / 3
    assert {language: figures["num_tokens"] > 100 for language, figures in report["error"].items()} == {
        "english": True,
        "korean": True,
    }
