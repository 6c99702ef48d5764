"""What holds for every test: the settings of whoever runs them stay outside."""

import os

import pytest


def pytest_configure():
    # Tiny models gain nothing from a second thread, and waiting threads spin: on two cores with other
    # tests beside them that costs more than the computation. Before torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.upper().startswith("ONDOL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg-config"))
