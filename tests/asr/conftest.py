"""The tests of asr: those of the recognisers run in the environment asr."""

from __future__ import annotations

from tests.asr import elsewhere, models


def pytest_configure(config):
    config.addinivalue_line("markers", "environment(name): runs in that pipeline's environment")
    config.pluginmanager.register(elsewhere.Elsewhere(lambda _: models.python()), "elsewhere")
