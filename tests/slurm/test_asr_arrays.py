"""Transcripts on a real Slurm with PocketSphinx: a 16-task array, a preempted and a killed member, a poisoned file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Iterator, NamedTuple

import pytest
from brake import Brake, hold
from cluster import Cluster
from processes import send
from proof import RunFiles
from scene import REPOSITORY, Scene, variables

from slurm import environments
from tests import corpus as recordings

ITEMS = 48


class Prepared(NamedTuple):
    """A manifest of real speech with one file that is none, and what one undisturbed process makes of it."""

    manifest: Path
    transcribed: Path


@pytest.fixture(scope="module")
def prepared(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    if not environments.is_ready("asr"):
        pytest.skip("the environment asr is not made")
    root = tmp_path_factory.mktemp("asr")
    rows = [
        {"audio_filepath": str(path), "duration": len(recordings.read_wave(path)) / 16000}
        for path in recordings.speech("en", ITEMS, longest=2.5)
    ]
    poisoned = root / "poisoned.wav"
    poisoned.write_bytes(b"RIFF and then nothing of use")
    rows.insert(7, {"audio_filepath": str(poisoned), "duration": 1.0})
    manifest = root / "corpus.json"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    transcribed = root / "reference" / "corpus.json"
    transcribed.parent.mkdir()
    shutil.copyfile(manifest, transcribed)
    argv = [str(environments.python("asr")), "-m", "pipelines.asr", str(transcribed), "--model", "pocketsphinx"]
    env = {**os.environ, **variables(root / "reference")}
    done = subprocess.run([*argv, "--cpus", "2"], env=env, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    return Prepared(manifest, transcribed)


class AsrScene(Scene):
    """A home on the cluster with a copy of the manifest: `asr` writes into it."""

    def prepare(self, prepared: Prepared) -> None:
        self.manifest = self.home / "corpus.json"
        shutil.copyfile(prepared.manifest, self.manifest)

    def array(self, *options: str) -> str:
        script = [str(REPOSITORY / "slurm" / "asr.slurm"), str(self.manifest), "--model", "pocketsphinx"]
        argv = ["sbatch", "--parsable", "--cpus-per-task=1", "--mem=0", *options, *script]
        return self._call(argv, [0], sacct=True).stdout.strip()


@pytest.fixture
def asr(cluster: Cluster, tmp_path: Path, corpus: Path, prepared: Prepared) -> Iterator[AsrScene]:
    scene = AsrScene(cluster, tmp_path / "home", corpus, None)
    scene.prepare(prepared)
    yield scene


def conserved(run: RunFiles) -> None:
    receipt = run.receipt()
    assert (receipt["items"], receipt["merged"], receipt["quarantined"]) == (ITEMS + 1, ITEMS, 1)
    assert set(run.done().values()) == {1}


@pytest.mark.deadline(900)
def test_sixteen_tasks_one_requeued_and_one_killed(asr, prepared):
    """Task 3 is requeued in mid-run, as a preemption does; task 9 is killed, and repaired by `--array=9`."""
    job = asr.array("--array=0-15", "--requeue")
    brake = Brake(asr.cluster.processes, asr.home / "output" / "runs", "corpus")
    try:
        hold({brake: (3, 9)}, timeout_s=600)
        asr.cluster.scontrol("requeue", f"{job}_3")
        for pid in asr.pids(job, 9, "pipelines.asr"):
            send(pid, signal.SIGKILL)
    finally:
        brake.release()
    states = asr.cluster.wait_for_jobs(job, timeout_s=750)
    assert {name for name, state in states.items() if state != "COMPLETED"} <= {f"{job}_9"}
    run = asr.run("corpus")
    if not run.receipt():
        again = asr.array("--array=9")
        assert set(asr.cluster.wait_for_jobs(again, timeout_s=600).values()) == {"COMPLETED"}
    conserved(run)
    assert asr.manifest.read_bytes() == prepared.transcribed.read_bytes()
    assert asr.manifest.with_name("corpus.json.bak").read_bytes() == prepared.manifest.read_bytes()


@pytest.mark.deadline(600)
def test_the_launcher_and_its_sweep(asr, prepared):
    asr.voxarray(
        *("asr", str(asr.manifest), "--model", "pocketsphinx"),
        *("--cluster", "slurm", "--tasks", "4", "--cpus", "1", "--wait"),
        statuses=[1],
    )
    conserved(asr.run("corpus"))
    assert asr.manifest.read_bytes() == prepared.transcribed.read_bytes()
