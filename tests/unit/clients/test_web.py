"""The web chat's modules that need no browser, in Node; tests/web asks and judges, this file runs it."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(shutil.which("node") is None, reason="node is missing; the web chat's modules run in it")
def test_the_modules_of_the_web_chat_keep_their_word():
    tests = sorted((ROOT / "tests" / "web").glob("*.test.mjs"))
    assert tests
    # All in one process: starting Node twenty times takes longer than the tests.
    modules = "\n".join(f'await import("{file.as_uri()}");' for file in tests)
    command = ["node", "--test-reporter=spec", "--input-type=module", "--eval", modules]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fail 0" in done.stdout
