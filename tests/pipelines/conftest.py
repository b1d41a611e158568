"""The pipelines' tests: real speech where it can be had, else they skip with the reason."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests import corpus


def _or_skip(make):
    try:
        return make()
    except corpus.Missing as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def speech():
    """About a minute of real speech at 16 kHz, int16."""
    import numpy as np

    files = _or_skip(lambda: corpus.speech("en", 24, longest=8.0))
    return np.concatenate([corpus.read_wave(path) for path in files])


@pytest.fixture(scope="session")
def prompts():
    """Short recordings of real speech, 16 kHz WAVE."""
    return _or_skip(lambda: corpus.speech("en", 24, longest=4.0))


@pytest.fixture(scope="session")
def ten():
    """TEN-VAD on one thread."""
    from pipelines.core.errors import EnvironmentNotFit
    from pipelines.voice.ten import Ten

    try:
        return Ten(lambda _: None)
    except EnvironmentNotFit as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def silero():
    from pipelines.voice.silero import Silero

    return Silero()
