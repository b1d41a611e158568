"""Every test of the engine gets a home of its own, the toy pipelines, and no trace of a scheduler around it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.core.world import World, seed


def pytest_report_header():
    return f"voxarray: seed {seed()} (VOXARRAY_SEED), {os.environ.get('VOXARRAY_KILLS', '200')} kills (VOXARRAY_KILLS)"


@pytest.fixture
def world():
    with World() as made:
        yield made
