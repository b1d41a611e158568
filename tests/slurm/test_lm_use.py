"""`score` and `sample` as plain arrays on a real Slurm: the bytes of one process, however many tasks there are."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from proof import RunFiles
from scene import REPOSITORY, Scene, variables

from tests.lm import making
from tests.lm.sources import write
from tests.lm.test_score import model_in

DRAWN = ["--items", "30", "--max-units", "20"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Units, their manifest, a model, and what one process makes of them."""
    folder = tmp_path_factory.mktemp("use")
    _, drawn = making.sequences(60)
    write(folder, drawn, 12)
    model_in(folder / "model")
    alone(folder, "score", str(copied(folder, folder / "one")), str(folder / "model"))
    alone(folder, "sample", str(folder / "model"), "drawn", *DRAWN)
    return folder


def copied(data: Path, home: Path) -> Path:
    """A manifest of one's own: `score` writes into it."""
    home.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(data / "corpus.json", home / "corpus.json"))


def settings(home: Path) -> dict[str, str]:
    return {**variables(home), "VOXARRAY_DEVICE": "cpu"}


def alone(data: Path, name: str, *arguments: str) -> None:
    env = {**os.environ, **settings(data / "one")}
    argv = [sys.executable, "-m", f"pipelines.{name}", *arguments]
    done = subprocess.run(argv, env=env, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def array(scene: Scene, name: str, *arguments: str) -> RunFiles:
    """`sbatch --array=0-3 slurm/NAME.slurm ARGUMENTS`, to its end; the run."""
    script = [str(REPOSITORY / "slurm" / f"{name}.slurm"), *arguments]
    argv = ["sbatch", "--parsable", "--cpus-per-task=1", "--mem=0", "--array=0-3", *script]
    job = scene._call(argv, [0], sacct=True, **settings(scene.home)).stdout.strip()
    assert set(scene.cluster.wait_for_jobs(job, timeout_s=450).values()) == {"COMPLETED"}
    runs = (path for path in (scene.home / "output" / "runs").glob("*/run.json"))
    return RunFiles(next(path.parent for path in runs if json.loads(path.read_text())["pipeline"] == name))


@pytest.mark.deadline(600)
def test_score(cluster, tmp_path, data):
    scene = Scene(cluster, tmp_path / "home", data, None)
    manifest = copied(data, tmp_path)
    run = array(scene, "score", str(manifest), str(data / "model"))
    assert run.receipt()["merged"] == 60
    assert {row["task"] for row in run.rows()} == {0, 1, 2, 3}
    assert manifest.read_bytes() == (data / "one" / "corpus.json").read_bytes()


@pytest.mark.deadline(600)
def test_sample(cluster, tmp_path, data):
    scene = Scene(cluster, tmp_path / "home", data, None)
    run = array(scene, "sample", str(data / "model"), "drawn", *DRAWN)
    assert run.receipt()["merged"] == 30
    for name in ("units-00000.npy", "durations-00000.npy", "index.npy"):
        mine, its = (home / "output" / "drawn" / "units" / name for home in (scene.home, data / "one"))
        assert mine.read_bytes() == its.read_bytes(), name
