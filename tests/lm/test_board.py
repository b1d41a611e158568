"""What TensorBoard shows: every step once, whatever was stopped or killed in between."""

from __future__ import annotations

import math

import pytest

from pipelines.core.errors import Unfinished
from tests.lm import making

pytestmark = pytest.mark.environment("lm")


def test_every_step_is_shown_once(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, drawn = making.sequences(120)
    corpus = making.corpus(tmp_path / "corpus", drawn)
    folder = tmp_path / "model"
    for left in (5, 9, 10_000):
        asked = iter(range(100_000))
        one = making.trainer(corpus, folder, lambda asked=asked, left=left: next(asked) + 1 >= left)
        if left == 9:
            one._save = lambda: None  # as if it had been killed before it could save: its steps are done again
        try:
            one.run()
        except Unfinished:
            continue
    shown = EventAccumulator(str(folder))
    shown.Reload()
    steps = [event.step for event in shown.Scalars("train/bits_per_unit")]
    assert steps == list(range(1, one.progress.step + 1))
    valid = shown.Scalars("valid/bits_per_unit")
    told = [entry["bits_per_unit"] for entry in one.progress.history]
    assert len(valid) == len(told)
    assert all(math.isclose(event.value, bits, rel_tol=1e-5) for event, bits in zip(valid, told))
