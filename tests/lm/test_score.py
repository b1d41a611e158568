"""`score`: what rows are worth, the same however the work is cut; and the share of pairs that are right."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from pipelines.core.errors import ManifestError
from pipelines.language import files, models, scoring
from pipelines.score import pairs
from slurm import cli
from tests.lm import making
from tests.lm.sources import write
from tests.units.stage import rows_of


def model_in(folder, raw=False, **settings):
    """An untrained model, in a file as `lm` writes it."""
    torch.manual_seed(0)
    chosen = making.settings(**settings)
    model = models.build(chosen)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)  # so that it has opinions
    units = files.UnitsOf("made", 12, 50.0, raw, "/made", "0" * 64)
    files.save(folder / files.BEST, model, files.Description(files.FORMAT, chosen, units, {"bits_per_unit": 3.0}, 1))
    return model.double().eval()


@pytest.fixture
def made(stage):
    _, drawn = making.sequences(30)
    manifest, _ = write(stage.root / "data", drawn, 12)
    return manifest, drawn


@pytest.mark.parametrize("kind", [{"model": "lstm"}, {"model": "transformer", "max_length": 8}])
def test_scores_are_added_to_the_manifest(stage, made, kind):
    manifest, drawn = made
    model = model_in(stage.root / "model", **kind)
    status, said = stage.give("score", manifest, stage.root / "model")
    assert status == 0, said
    for row, sequence in zip(rows_of(manifest), drawn):
        alone = scoring.log_probabilities(model, [sequence])[0]
        assert row["log_probability"] == pytest.approx(alone, abs=1e-4)
        assert row["num_tokens"] == len(sequence) + 1
        assert row["bits_per_unit"] == pytest.approx(-alone / row["num_tokens"] / math.log(2), abs=1e-5)


def test_the_same_bytes_however_the_work_is_cut(stage, made):
    manifest, _ = made
    before = manifest.read_bytes()
    model_in(stage.root / "model")
    found = []
    for tasks in (1, 7):
        manifest.write_bytes(before)
        status, said = stage.give(
            "score", manifest, stage.root / "model", "--tasks", tasks, "--fresh", "--cpus", tasks
        )
        assert status == 0, said
        found.append(manifest.read_bytes())
    assert found[0] == found[1] != before


def test_several_models_in_one_manifest(stage, made):
    manifest, _ = made
    for name in ("a", "b"):
        model_in(stage.root / name, model={"a": "lstm", "b": "transformer"}[name])
        status, said = stage.give("score", manifest, stage.root / name, "--field", name)
        assert status == 0, said
    row = rows_of(manifest)[0]
    assert row["a_log_probability"] != row["b_log_probability"]
    assert row["a_num_tokens"] == row["b_num_tokens"]


def test_frames_are_scored_as_the_model_knows_them(stage):
    """Units as text; runs of equal units are one to a model of deduplicated units, several to one of frames."""
    rows = [
        {"audio_filepath": "/w/0", "units": "3 3 7"},
        {"audio_filepath": "/w/1", "units": [3, 7], "durations": [2, 1]},
    ]
    for raw in (False, True):
        manifest = stage.write(rows, f"words{raw}.json")
        model = model_in(stage.root / str(raw), raw=raw)
        status, said = stage.give("score", manifest, stage.root / str(raw))
        assert status == 0, said
        sequence = np.array([3, 3, 7] if raw else [3, 7], np.uint16)
        expected = scoring.log_probabilities(model, [sequence])[0]
        for row in rows_of(manifest):
            assert row["log_probability"] == pytest.approx(expected, abs=1e-4)
            assert row["num_tokens"] == len(sequence) + 1


def test_bad_rows_are_named_and_keep_nobody(stage, made):
    manifest, _ = made
    description = stage.root / "data" / "units" / "units.json"
    rows = rows_of(manifest)[:2]
    rows += [
        {"audio_filepath": "/w/0", "units": "3 99"},
        {"audio_filepath": "/w/1", "units": ""},
        {"audio_filepath": "/w/2"},
    ]
    mixed = stage.write(rows, "mixed.json")
    model_in(stage.root / "model")
    status, said = stage.give("score", mixed, stage.root / "model")
    assert status == 1
    assert "2 merged + 3 quarantined" in said
    for words in ("has the unit 99, and made has units 0 to 11", "are empty", "has no units"):
        assert words in said
    assert ["log_probability" in row for row in rows_of(mixed)] == [True, True, False, False, False]

    description.write_text(description.read_text().replace("0" * 64, "1" * 64))
    status, said = stage.give("score", manifest, stage.root / "model")
    assert status == 1
    assert "and not of made (00000000)" in said


@pytest.mark.parametrize(
    ("words", "said"), [(["nowhere"], "no trained model"), (["model", "--field", "a b"], "must be a name")]
)
def test_faults_of_the_command(stage, made, words, said):
    model_in(stage.root / "model")
    status, told = stage.give("score", made[0], stage.root / words[0], *words[1:])
    assert status == 2
    assert said in told


def scored(tmp_path, rows):
    path = tmp_path / "scored.json"
    lines = [{"audio_filepath": f"/w/{number}", **row} for number, row in enumerate(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    return path


def side(pair, correct, value, tokens=1, **fields):
    return {"pair": pair, "correct": correct, "log_probability": value, "num_tokens": tokens, **fields}


def test_pairs(tmp_path, capsys):
    rows = [
        *(side("a", True, -3.0), side("a", False, -4.0)),
        *(side("b", True, -5.0, 10), side("b", False, -4.0, 2)),  # right a token only
        *(side("c", True, -2.0), side("c", False, -2.0)),
        *(side("d", True, -1.0), side("d", True, -9.0), side("d", False, -5.0)),  # two voices
        side("e", True, -1.0),
    ]
    path = scored(tmp_path, rows)
    found = pairs.shares(path)
    assert found == (4, (1 + 0 + 0.5 + 0.5) / 4, (1 + 1 + 0.5 + 0.5) / 4, 1)
    assert pairs.main([str(path)]) == 0
    said = capsys.readouterr().out
    assert "0.5000" in said and "0.7500" in said and "1 (left out)" in said
    assert cli.main(["pairs", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"pairs": 4, "total": 0.5, "mean": 0.75, "alone": 1}


def test_pairs_by_several_fields_and_of_one_of_several_models(tmp_path):
    rows = [
        {"word": word, "voice": voice, "real": real, "m_log_probability": -1.0 - (not real), "m_num_tokens": 3}
        for word in ("x", "y")
        for voice in ("f", "m")
        for real in (True, False)
    ]
    assert pairs.shares(scored(tmp_path, rows), "m", ["word", "voice"], "real") == (4, 1.0, 1.0, 0)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"pair": "a", "correct": True}, r"1 items of .*item 3 \(/w/2\).*voxarray score"),
        (side("a", "yes", -1.0), "must be true or false"),
        ({"correct": True, "log_probability": -1.0, "num_tokens": 2}, "no field 'pair'.*--by"),
    ],
)
def test_pairs_that_are_none(tmp_path, capsys, row, said):
    good = [side("a", True, -1.0), side("a", False, -2.0)]
    with pytest.raises(ManifestError, match=said):
        pairs.shares(scored(tmp_path, [*good, row]))
    with pytest.raises(ManifestError, match="has no pairs"):
        pairs.shares(scored(tmp_path, good[:1]))
    assert pairs.main([str(scored(tmp_path, good[:1]))]) == 2
    assert capsys.readouterr().err.startswith("voxarray: ")
