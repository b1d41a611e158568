"""The command line of `lm`, its grids, and the leaderboard that comes of them."""

from __future__ import annotations

import argparse
import csv
import json
import xml.etree.ElementTree as ET

import pytest
import torch

from pipelines.core.errors import UsageError
from pipelines.lm import grid, options
from tests.lm import making
from tests.lm.sources import write

SEEDS_FLAGS = {
    "embedding_dim": "64",
    "hidden_size": "32",
    "num_layers": "3",
    "dropout": "0.2",
    "batch_size": "4",
    "learning_rate": "0.003",
    "num_epochs": "7",
    "train_ratio": "0.8",
    "early_stopping": "2",
    "seed": "5",
}


@pytest.fixture
def made(tmp_path):
    _, drawn = making.sequences(40)
    return write(tmp_path, drawn, 12, speakers=8)


def asked(manifest, *words):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("source")
    options.add_arguments(parser)
    return options.parameters(parser.parse_args([str(manifest), *map(str, words)]))


@pytest.mark.parametrize("hyphens", [False, True])
def test_the_published_recipes_flags(made, hyphens):
    path, folder = made
    flags = [
        word
        for name, value in SEEDS_FLAGS.items()
        for word in (f"--{name.replace('_', '-') if hyphens else name}", value)
    ]
    more = ["--load-on-the-fly", "--tokens-dir"] if hyphens else ["--load_on_the_fly", "--tokens_dir"]
    found = asked(path, *flags, *more, folder)
    assert {name: str(found[name]) for name in SEEDS_FLAGS} == SEEDS_FLAGS
    assert found["units"] == str(folder)
    assert found["split_seed"] == 5
    assert found["vocabulary_size"] == 12


def test_units_are_where_the_manifest_says(made):
    path, folder = made
    assert asked(path)["units"] == asked(path, folder.parent)["units"] == str(folder)
    path.write_text('{"audio_filepath": "/a.wav", "duration": 1}\n')
    with pytest.raises(UsageError, match=r"names no packed units.*voxarray encode"):
        asked(path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dropout", "1"], "--dropout is 1.0, and must be a number from 0 to 0.99"),
        (["--num-layers", "0"], "--num-layers is 0, and must be a whole number from 1"),
        (["--train-ratio", "1"], "--train-ratio is 1.0, and must be a number from 0.01 to 0.999"),
        (["--model", "transformer", "--hidden-size", "60", "--num-heads", "8"], "cannot be shared"),
        (["--split-by", "singer"], "no such field, only audio_filepath, duration"),
        (["--vocabulary-size", "2000"], "are of 12"),
        (["/nowhere"], "no such folder"),
    ],
)
def test_faults_are_told_before_anything_is_launched(made, words, said):
    with pytest.raises(UsageError, match=said):
        asked(made[0], *words)


def test_the_default_grid_is_the_published_one(made):
    found = asked(made[0], "--grid")
    assert len(grid.combinations({}, found["grid"])) == 16
    names = {grid.name_of({**found, **chosen}, found["grid"]) for chosen in grid.combinations({}, found["grid"])}
    assert "lstm_r0.001_h512_e256_l2_b32_d0.1" in names
    assert len(names) == 16


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hidden_size = [16, 32", "not TOML"),
        ("hidden_sise = [16]", "varies 'hidden_sise', which is no setting"),
        ("train_ratio = [0.5]", "no setting of a model or its training"),
        ("hidden_size = 16", "must be a list of different values"),
        ("hidden_size = []", "must be a list of different values"),
        ("hidden_size = [16, 16]", "must be a list of different values"),
        ("hidden_size = [16, 'large']", "--hidden-size is 'large'"),
        ("num_layers = [1, 1.5]", "--num-layers is 1.5, and must be a whole number"),
        ("dropout = [true, 0.1]", "--dropout is True"),
        ("model = ['gru']", "There is no model 'gru'"),
        ("num_heads = [2, 4]", "varies num_heads, which a lstm does not have"),
        ("", "varies nothing"),
        ("grid = 3", "must be a table"),
        (f"seed = {list(range(101))}\nbatch_size = {list(range(1, 101))}", "10,100 combinations"),
    ],
)
def test_faults_of_grid_files_are_told(made, tmp_path, text, said):
    (tmp_path / "g.toml").write_text(text)
    with pytest.raises(UsageError, match=said):
        asked(made[0], "--grid", tmp_path / "g.toml")


def test_a_grid_that_is_not_there(made, tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        asked(made[0], "--grid", tmp_path / "none.toml")


def board(stage):
    (folder,) = (stage.home / "output" / "checkpoints").glob("*")
    with (folder / "leaderboard.csv").open(newline="") as file:
        return folder, list(csv.DictReader(file))


def test_a_grid_its_leaderboard_and_only_what_is_missing_again(stage):
    _, drawn = making.sequences(60)
    manifest, _ = write(stage.root / "data", drawn, 12)
    file = stage.root / "g.toml"
    file.write_text("[grid]\nhidden_size = [4, 8]\nlearning_rate = [0.01, 1e9]\n")
    status, said = stage.give("lm", manifest, *making.FLAGS, "--grid", file)
    assert status == 2 and "--learning-rate is 1000000000.0" in said
    file.write_text("[grid]\nhidden_size = [4, 8]\nseed = [1, 2]\n")
    command = ["lm", manifest, *making.FLAGS, "--grid", file, "--test-ratio", "0.1"]
    status, said = stage.give(*command)
    assert status == 0, said
    folder, rows = board(stage)
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    bits = [float(row["bits_per_unit"]) for row in rows]
    assert bits == sorted(bits)
    assert {(row["hidden_size"], row["seed"]) for row in rows} == {("4", "1"), ("4", "2"), ("8", "1"), ("8", "2")}
    assert all(float(row["test_bits_per_unit"]) > 0 for row in rows)
    drawing = ET.parse(folder / "leaderboard.svg").getroot()
    assert len(drawing.findall("{http://www.w3.org/2000/svg}polyline")) == 4
    records = [json.loads(line) for line in (folder / "leaderboard.json").read_text().splitlines()]
    assert [len(record["history"]) for record in records] == [3] * 4

    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/best.safetensors")}
    lost = sorted(before)[2]
    lost.unlink()
    (lost.parent / "last.pt").unlink()
    status, said = stage.give(*command)
    assert status == 0, said
    assert "1 items to do" in said
    after = {path: path.stat().st_mtime_ns for path in folder.glob("*/best.safetensors")}
    assert {path for path in before if before[path] != after[path]} == {lost}
    assert [{**row, "training_seconds": "", "tokens_per_second": ""} for row in board(stage)[1]] == [
        {**row, "training_seconds": "", "tokens_per_second": ""} for row in rows
    ]


def test_a_training_that_diverges_is_told_in_the_leaderboard_and_the_others_go_on(stage):
    """Weights that are no numbers stand for it: no learning rate within bounds does it reliably."""
    _, drawn = making.sequences(60)
    manifest, _ = write(stage.root / "data", drawn, 12)
    file = stage.root / "g.toml"
    file.write_text("seed = [1, 2]\n")
    from pipelines.lm import training

    real = training.Trainer._nats

    def broken(self, numbers):
        return real(self, numbers) * (float("nan") if self._settings["seed"] == 2 else 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Trainer, "_nats", broken)
        status, said = stage.give("lm", manifest, *making.FLAGS, "--grid", file)
    assert status == 1
    assert "1 merged + 1 quarantined" in said
    _, rows = board(stage)
    assert [row["rank"] for row in rows] == ["1", ""]
    assert "training has diverged" in rows[1]["error"]


def test_files_of_tensors_through_the_engine(stage):
    _, drawn = making.sequences(40)
    folder = stage.root / "tokens"
    folder.mkdir()
    lines = ["file_id,duration"]
    for number, units in enumerate(drawn):
        torch.save(torch.tensor(units.astype("int64")), folder / f"{number:03d}.pt")
        lines.append(f"{number:03d},{len(units) / 50}")
    manifest = stage.root / "librivox.csv"
    manifest.write_text("\n".join(lines) + "\n")
    flags = ["--num_epochs", "1", "--hidden_size", "8", "--embedding_dim", "8", "--batch_size", "8"]
    status, said = stage.give("lm", manifest, "--tokens_dir", folder, *flags, "--load_on_the_fly")
    assert status == 0, said
    assert "is taken to be 12" in said
    assert len(board(stage)[1]) == 1
