"""Units and resynthesis on a real Slurm: plain arrays, their repair, and a codebook that is to be fitted first."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Iterator, NamedTuple

import pytest
from brake import Brake, hold
from processes import send
from proof import RunFiles
from scene import REPOSITORY, Scene, variables

from tests import corpus as recordings

ITEMS = 48
CODEBOOK = "logmel-kmeans-20"
PACKED = ("units-00000.npy", "durations-00000.npy", "index.npy")


class Prepared(NamedTuple):
    """Recordings with their manifest, models, and what one undisturbed process makes of them."""

    data: Path
    manifest: Path
    models: Path
    home: Path

    def files(self, home: Path, suffix: str = ".wav") -> dict[str, bytes]:
        folder = home / "output" / "corpus"
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(f"*{suffix}")}


@pytest.fixture(scope="module")
def prepared(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    root = tmp_path_factory.mktemp("units")
    data, rows = root / "corpus", []
    for number, path in enumerate(recordings.speech("en", ITEMS, longest=3.0)):
        target = data / f"s{number % 3}" / f"{number:03d}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        rows.append({"audio_filepath": str(target), "duration": len(recordings.read_wave(path)) / 16000})
    empty = data / "s0" / "empty.wav"
    empty.touch()
    rows.insert(7, {"audio_filepath": str(empty), "duration": 1.0})
    manifest = root / "corpus.json"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = Prepared(data, manifest, root / "models", root / "reference")
    call(made, made.home, "kmeans", str(manifest), CODEBOOK, "--clusters", "20", status=1)
    for name in ("encode", "sts"):
        call(made, made.home, name, str(copied(made, made.home)), "corpus", "--units", CODEBOOK_HERE, status=1)
    return made


CODEBOOK_HERE = "./codebook"


def settings(prepared: Prepared, home: Path) -> dict[str, str]:
    return {**variables(home), "VOXARRAY_MODELS": str(prepared.models), "VOXARRAY_DEVICE": "cpu"}


def copied(prepared: Prepared, home: Path) -> Path:
    """A manifest of one's own: `encode` writes into it."""
    home.mkdir(parents=True, exist_ok=True)
    path = home / "corpus.json"
    if not path.exists():
        shutil.copyfile(prepared.manifest, path)
    return path


def call(prepared: Prepared, home: Path, name: str, *arguments: str, status: int) -> None:
    env = {**os.environ, **settings(prepared, home)}
    given = [str(prepared.models / CODEBOOK) if word == CODEBOOK_HERE else word for word in arguments]
    argv = [sys.executable, "-m", f"pipelines.{name}", *given, "--cpus", "2"]
    done = subprocess.run(argv, env=env, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr


class UnitsScene(Scene):
    """A home on the cluster where the units' pipelines run."""

    prepared: Prepared

    def array(self, name: str, *options: str, after: str = "") -> str:
        """`sbatch OPTIONS slurm/NAME.slurm MANIFEST corpus … AFTER`."""
        script = [str(REPOSITORY / "slurm" / f"{name}.slurm"), str(copied(self.prepared, self.home)), "corpus"]
        units = ["--units", str(self.prepared.models / CODEBOOK)]
        argv = ["sbatch", "--parsable", "--cpus-per-task=1", "--mem=0", *options, *script, *after.split(), *units]
        return self._call(argv, [0], sacct=True, **settings(self.prepared, self.home)).stdout.strip()

    def run_of(self, pipeline: str) -> RunFiles:
        for path in (self.home / "output" / "runs").glob("*/run.json"):
            if json.loads(path.read_text())["pipeline"] == pipeline:
                return RunFiles(path.parent)
        raise AssertionError(f"there is no run of {pipeline}")


@pytest.fixture
def units(cluster, tmp_path, corpus, prepared) -> Iterator[UnitsScene]:
    scene = UnitsScene(cluster, tmp_path / "home", corpus, None)
    scene.prepared = prepared
    yield scene


def conserved(run: RunFiles) -> None:
    receipt = run.receipt()
    assert (receipt["items"], receipt["merged"], receipt["quarantined"]) == (ITEMS + 1, ITEMS, 1)


@pytest.mark.deadline(720)
def test_sixteen_tasks_encode_to_the_same_bytes(units, prepared):
    job = units.array("encode", "--array=0-15")
    assert set(units.cluster.wait_for_jobs(job, timeout_s=600).values()) == {"COMPLETED"}
    conserved(units.run_of("encode"))
    ours, theirs = (home / "output" / "corpus" / "units" for home in (units.home, prepared.home))
    for name in PACKED:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    rows = [json.loads(line) for line in (units.home / "corpus.json").read_text().splitlines()]
    assert [row.get("units_row") for row in rows] == [*range(7), None, *range(7, ITEMS)]


@pytest.mark.deadline(900)
def test_killed_tasks_of_sts_are_repaired_as_documented(units, prepared):
    """Tasks 0, 5 and 12 of 16 are killed; `--array=0,5,12` does what they lack, and remembers the 16."""
    job = units.array("sts", "--array=0-15")
    runs = units.home / "output" / "runs"
    brake = Brake(units.cluster.processes, runs, "corpus")
    try:
        hold({brake: (0, 5, 12)}, timeout_s=600)
        units.cluster.scancel("--signal=KILL", "--full", f"{job}_0", f"{job}_12")
        for pid in units.pids(job, 5, "pipelines.sts"):
            send(pid, signal.SIGKILL)
    finally:
        brake.release()
    states = units.cluster.wait_for_jobs(job, timeout_s=600)
    assert {name for name, state in states.items() if state != "COMPLETED"} == {f"{job}_{task}" for task in (0, 5, 12)}
    run = units.run_of("sts")
    assert not run.receipt()
    kept = {path: path.stat().st_mtime_ns for path in (units.home / "output" / "corpus").rglob("*.wav")}
    again = units.array("sts", "--array=0,5,12")
    assert set(units.cluster.wait_for_jobs(again, timeout_s=600).values()) == {"COMPLETED"}
    conserved(run)
    assert [launch["tasks"] for launch in run.launches()] == [16, 16]
    assert {index % 16 for index in run.places(1)} <= {0, 5, 12}
    assert set(run.done().values()) == {1}
    assert units.prepared.files(units.home) == prepared.files(prepared.home)
    assert not list((units.home / "output" / "corpus").rglob("*.tmp"))
    done_before = {path for path in kept if path.stat().st_mtime_ns == kept[path]}
    assert len(done_before) >= len(kept) - 6, "what was done stays as it was, but for a batch in flight a task"


@pytest.mark.deadline(900)
def test_the_launcher_fits_the_codebook_first(units, prepared):
    said = units.voxarray(
        *("encode", str(copied(prepared, units.home)), "corpus", "--units", "logmel-kmeans-8"),
        *("--cluster", "slurm", "--cpus", "1", "--tasks", "4", "--wait"),
        statuses=[1],
        **{**settings(prepared, units.home), "VOXARRAY_MODELS": str(units.home / "models")},
    )
    assert "First: voxarray kmeans" in said
    conserved(units.run_of("kmeans"))
    conserved(units.run_of("encode"))
    (codebook,) = (units.home / "models").iterdir()
    assert codebook.name.startswith("logmel-kmeans-8.corpus-")
