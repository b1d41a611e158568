"""Fixtures of the tests of language models; what needs TensorBoard runs in the environment lm."""

from __future__ import annotations

import pytest
import torch

from tests.asr import elsewhere


def pytest_configure(config):
    elsewhere.register(config)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small matrices gain nothing from threads, and other tests may be running."""
    torch.set_num_threads(1)


@pytest.fixture
def stage():
    """A home of its own, and commands that run there."""
    from tests.units.stage import Stage  # needs packages that the environment lm lacks

    with Stage() as made:
        yield made
