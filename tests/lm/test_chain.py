"""From recordings to speech that nobody said: encode, lm, score, sample, sts, each by what the one before wrote."""

from __future__ import annotations

import pytest

from tests import corpus
from tests.lm import making
from tests.units.stage import rows_of, samples_of


def test_recordings_units_model_samples_speech(stage):
    try:
        rows = stage.speech(12)
    except corpus.Missing as reason:
        pytest.skip(str(reason))
    manifest = stage.write(rows, "corpus.json")
    units = stage.fitted(manifest)
    checkpoints = stage.home / "output" / "checkpoints"
    for command in (
        ["encode", manifest, "corpus", "--units", units],
        ["lm", manifest, *making.FLAGS, "--train-ratio", "0.8"],
    ):
        status, said = stage.give(*command)
        assert status == 0, said
    (run,) = checkpoints.iterdir()
    for command in (
        ["score", manifest, run],
        ["sample", run, "said", "--items", 3, "--max-units", 30, "--min-units", 10, "--frames-per-unit", 2],
        ["sample", run, "prompted", "--prompts", manifest, "--prompt-units", 10, "--max-units", 10],
        ["sts", stage.home / "metadata" / "said.json", "said", "--from", "units"],
        ["sts", stage.home / "metadata" / "prompted.json", "prompted", "--from", "units"],
    ):
        status, said = stage.give(*command)
        assert status == 0, said
    assert all(row["log_probability"] < 0 for row in rows_of(manifest))
    for name, count in (("said", 3), ("prompted", 12)):
        spoken = rows_of(stage.home / "output" / name / f"{name}.json")
        drawn = rows_of(stage.home / "metadata" / f"{name}.json")
        assert len(spoken) == count
        for row, its in zip(spoken, drawn):
            assert row["audio_filepath"] == its["audio_filepath"]
            assert len(samples_of(row["audio_filepath"])) == pytest.approx(its["duration"] * 16_000)
