"""What `kmeans` may be asked, found out before anything is launched and without numpy or torch."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys

import msgspec
import pytest

from pipelines.core.errors import ManifestError, UsageError
from pipelines.kmeans.options import add_arguments, made, parameters
from tests.core.world import REPOSITORY
from tests.units.voices import folder


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("VOXARRAY_HOME", str(tmp_path))
    monkeypatch.delenv("VOXARRAY_MODELS", raising=False)
    return tmp_path


@pytest.fixture
def manifest(tmp_path):
    """1,000 recordings of 36 s: 10 hours, 1.8 million frames."""

    def write(count=1000, **fields):
        path = tmp_path / "corpus.json"
        path.write_text(
            "".join(
                json.dumps({"audio_filepath": f"/a/{n}.wav", "duration": 36.0, **fields}) + "\n" for n in range(count)
            )
        )
        return path

    return write


def asked(manifest, *arguments, name="book"):
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    add_arguments(parser)
    return parameters(parser.parse_args([str(manifest), name, *map(str, arguments)]))


def encoder(home, layers=12, hop=320):
    config = {"layers": layers, "width": 768, "hop": hop}
    return folder(home / "output" / "models", "enc", "hubert", config, {"x": [0.0]})


def test_defaults(manifest):
    values = asked(manifest())
    rate = values.pop("rate")
    assert values == {
        "name": "book",
        "features": "logmel",
        "dense_model": None,
        "dense_name": None,
        "dense_digest": None,
        "layer": None,
        "width": 80,
        "hop": 320,
        "clusters": 100,
        "frames": 100_000,
        "seed": 0,
    }
    assert 100_000 / 1_799_000 < rate < 1.15 * 100_000 / 1_799_000
    assert math.log2(rate) * 8 == round(math.log2(rate) * 8)


@pytest.mark.parametrize(("clusters", "frames"), [(50, 100_000), (500, 128_000), (2000, 500_000), (65_536, 500_000)])
def test_frames_by_clusters(manifest, clusters, frames):
    assert asked(manifest(), "--clusters", clusters)["frames"] == frames


def test_a_small_manifest_is_taken_whole_and_a_little_more_speech_changes_nothing(manifest):
    assert asked(manifest(10))["rate"] == 1.0
    assert asked(manifest(1000))["rate"] == asked(manifest(1001))["rate"]


def test_an_encoders_features(manifest, home):
    encoder(home)
    values = asked(manifest(), "--features", "enc", "--layer", 6, "--clusters", 500, "--seed", 3)
    assert (values["features"], values["dense_name"], values["layer"]) == ("hubert", "enc", 6)
    assert values["dense_model"] == str(home / "output" / "models" / "enc")
    assert (values["width"], values["hop"], values["seed"]) == (768, 320, 3)
    assert len(values["dense_digest"]) == 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clusters", 1], "2 to 65,536"),
        (["--clusters", 70_000], "2 to 65,536"),
        (["--frames", 50], "fewer than the 100 clusters"),
        (["--seed", -1], "from 0 to"),
        (["--layer", 6], "log-mel bands have no layers"),
        (["--features", "nothing-like-it"], "not there: nothing-like-it"),
        (["--features", "enc"], "--layer L, from 1 to 12"),
        (["--features", "enc", "--layer", 13], "has layers 1 to 12"),
        (["--features", "voice"], "is a vocoder .* and an encoder .* is needed"),
    ],
)
def test_what_does_not_fit_is_refused(manifest, home, arguments, message):
    encoder(home)
    folder(home / "output" / "models", "voice", "hifigan", {}, {"x": [0.0]})
    with pytest.raises(UsageError, match=message):
        asked(manifest(), *arguments)


@pytest.mark.parametrize("name", ["a/b", "../x", ".hidden", "a b", ""])
def test_a_name_is_one_folders_name(manifest, name):
    with pytest.raises(UsageError, match="cannot be a model's name"):
        asked(manifest(), name=name)


def test_too_little_speech_is_found_before_anything_runs(manifest):
    with pytest.raises(UsageError, match=r"holds 10 frames by its durations, fewer than the 100 clusters"):
        asked(manifest(10, duration=0.02))


def test_no_manifest(tmp_path):
    with pytest.raises(ManifestError, match="There is no manifest"):
        asked(tmp_path / "none.json")


def test_a_name_that_is_taken_is_refused_but_not_by_the_same_command(manifest, home):
    path = manifest()
    values = asked(path)
    config = {
        "clusters": 100,
        "width": 80,
        "features": {"kind": "logmel"},
        "fitted": {"made": made(str(path), values)},
    }
    folder(home / "output" / "models", "book", "codebook", config, {"centroids": [[0.0]]})
    assert asked(path) == values
    for arguments in (["--clusters", 50], ["--seed", 1], ["--frames", 5000]):
        with pytest.raises(UsageError, match="There is a model named book already"):
            asked(path, *arguments)


def test_parameters_are_json(manifest):
    values = asked(manifest())
    assert msgspec.json.decode(msgspec.json.encode(values)) == values


def test_nothing_heavy_is_imported(manifest, home):
    encoder(home)
    code = (
        "import sys, argparse; from pipelines.kmeans import PIPELINE; p = argparse.ArgumentParser();"
        "p.add_argument('source'); PIPELINE.add_arguments(p);"
        f"PIPELINE.parameters(p.parse_args([{str(manifest())!r}, 'book', '--features', 'enc', '--layer', '3']));"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert not {"numpy", "torch", "safetensors", "soundfile"} & set(done.stdout.split())
