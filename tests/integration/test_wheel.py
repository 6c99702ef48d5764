"""What a wheel carries beside Python: the files that only an installed daemon misses."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WEB = ROOT / "clients" / "web"


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory):
    """Built from a copy: setuptools leaves its working folders where it builds."""
    source = tmp_path_factory.mktemp("source")
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ("server", "configs", "clients"):
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=unwanted)
    (source / "clients" / "web" / "node_modules" / "package").mkdir(parents=True, exist_ok=True)
    (source / "clients" / "web" / "node_modules" / "package" / "index.js").write_text("", encoding="utf-8")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        "out",
        ".",
    ]
    subprocess.run(build, cwd=source, check=True, capture_output=True, timeout=120)
    (wheel,) = (source / "out").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return frozenset(archive.namelist())


@pytest.mark.slow
def test_a_wheel_carries_the_web_chat_and_not_what_it_was_set_up_with(wheel_names):
    """Slow: it builds a wheel of the whole package."""
    kinds = {".html", ".js", ".css"}
    wanted = {file for file in WEB.rglob("*") if file.suffix in kinds and "node_modules" not in file.parts}
    assert {f"ondol/api/web/{file.relative_to(WEB).as_posix()}" for file in wanted} <= wheel_names
    carried = {name for name in wheel_names if name.startswith("ondol/api/web/")}
    assert not {name for name in carried if "node_modules" in name or name.endswith((".mjs", ".json"))}


@pytest.mark.slow
def test_a_wheel_carries_the_catalog_and_the_messages(wheel_names):
    """Slow: it builds a wheel of the whole package."""
    assert "ondol/model_manager/catalog/starter.toml" in wheel_names
    assert "ondol/cli/messages/ko/settings.toml" in wheel_names
