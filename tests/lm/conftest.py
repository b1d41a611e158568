"""Fixtures of the tests of language models."""

from __future__ import annotations

import pytest
import torch

from tests.units.stage import Stage


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small matrices gain nothing from threads, and other tests may be running."""
    torch.set_num_threads(1)


@pytest.fixture
def stage():
    """A home of its own, and commands that run there."""
    with Stage() as made:
        yield made
