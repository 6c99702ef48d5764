"""What holds for every test: the settings of whoever runs them stay outside.

Also the one expensive thing that tests of several folders share: a daemon with the starter model.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.daemon import Daemon, clean_environment


def pytest_configure():
    # Tiny models gain nothing from a second thread, and waiting threads spin: on two cores with other
    # tests beside them that costs more than the computation. Before torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Shells start background jobs with Ctrl-C ignored, and so would be every program that a test interrupts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.upper().startswith("ONDOL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg-config"))


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def starter_folder():
    """The starter model in the user's own store: fetched once, found there by later runs."""
    pull = [sys.executable, "-m", "ondol", "pull", "starter"]
    done = subprocess.run(pull, env=clean_environment(), check=True, stdout=subprocess.PIPE, text=True)
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def starter_daemon(starter_folder):
    with Daemon("starter", "--kv-cache-memory", "256MiB", "--max-model-len", "1024") as daemon:
        yield daemon.wait_until_serving()
