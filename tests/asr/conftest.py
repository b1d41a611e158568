"""The tests of asr: those of the recognisers run in the environment asr."""

from __future__ import annotations

from tests.asr import elsewhere, models


def pytest_configure(config):
    elsewhere.register(config, lambda name: models.python() if name == "asr" else elsewhere.python(name))
