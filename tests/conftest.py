"""What holds for every test: the settings of whoever runs them stay outside."""

import os

import pytest


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.upper().startswith("ONDOL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg-config"))
