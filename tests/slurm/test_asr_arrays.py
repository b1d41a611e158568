"""Transcripts on a real Slurm: arrays whose members are requeued, killed and preempted, a poisoned file, a NeMo model.

Faults hit PocketSphinx, which publishes every few seconds; a model of NeMo's shows that arrays do with any recogniser.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, Iterable, Iterator, NamedTuple

import pytest
from brake import Brake, hold
from cluster import Cluster
from processes import send, wait_until
from proof import RunFiles
from scene import REPOSITORY, Scene, variables

from slurm import environments
from tests import corpus as recordings
from tests.asr import models

ITEMS = 48
PREEMPTED = 4
"""Tasks of the array that is preempted: one a node."""


class Prepared(NamedTuple):
    """A manifest of real speech, a model, and what one undisturbed process makes of it."""

    manifest: Path
    transcribed: Path
    model: str


@pytest.fixture(scope="module")
def prepared(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """With one file that is none."""
    root = tmp_path_factory.mktemp("asr")
    rows = rows_of(recordings.speech("en", ITEMS, longest=2.5))
    poisoned = root / "poisoned.wav"
    poisoned.write_bytes(b"RIFF and then nothing of use")
    rows.insert(7, {"audio_filepath": str(poisoned), "duration": 1.0})
    return prepare(root, rows, "pocketsphinx", status=1)


@pytest.fixture(scope="module")
def with_nemo(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Prompts that a tiny CTC model of NeMo's knows by heart."""
    try:
        model = str(models.built("ctc"))
    except recordings.Missing as reason:
        pytest.skip(str(reason))
    return prepare(tmp_path_factory.mktemp("nemo"), rows_of(each.path for each in models.few("ctc")[:8]), model)


def rows_of(paths: Iterable[Path]) -> list[dict[str, Any]]:
    return [
        {"audio_filepath": str(path), "duration": len(recordings.read_wave(path)) / recordings.RATE} for path in paths
    ]


def prepare(root: Path, rows: list[dict[str, Any]], model: str, status: int = 0) -> Prepared:
    if not environments.is_ready("asr"):
        pytest.skip("the environment asr is not made")
    manifest = root / "corpus.json"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    transcribed = root / "reference" / "corpus.json"
    transcribed.parent.mkdir()
    shutil.copyfile(manifest, transcribed)
    argv = [str(environments.python("asr")), "-m", "pipelines.asr", str(transcribed), "--model", model, "--cpus", "2"]
    env = {**os.environ, **variables(root / "reference")}
    done = subprocess.run(argv, env=env, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return Prepared(manifest, transcribed, model)


class AsrScene(Scene):
    """A home on the cluster with a copy of the manifest: `asr` writes into it."""

    def prepare(self, prepared: Prepared) -> None:
        self.manifest, self.model = self.home / "corpus.json", prepared.model
        shutil.copyfile(prepared.manifest, self.manifest)

    def array(self, *options: str) -> str:
        script = [str(REPOSITORY / "slurm" / "asr.slurm"), str(self.manifest), "--model", self.model]
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
    """Task 3 is requeued in mid-run, as an operator does; task 9 is killed, and repaired by `--array=9`."""
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


@pytest.mark.deadline(900)
def test_preempted_tasks_publish_what_they_have_and_go_on(asr, prepared):
    """A higher partition takes all nodes: tasks are warned, have a grace time, and are requeued."""
    job = asr.array(f"--array=0-{PREEMPTED - 1}", "--partition=lowgrace", "--requeue")
    brake = Brake(asr.cluster.processes, asr.home / "output" / "runs", "corpus")
    try:
        hold({brake: range(PREEMPTED)}, timeout_s=600)
        high = asr.cluster.preempt(seconds=0.5)
        wait_until(lambda: any("PreemptTime" in record for record in asr.cluster.job(job)), 90, "preemption", 0.2)
    finally:
        brake.release()
    asr.cluster.wait_for_jobs(high, timeout_s=300)
    assert set(asr.cluster.wait_for_jobs(job, timeout_s=600).values()) == {"COMPLETED"}
    assert {int(record["Restarts"]) for record in asr.cluster.job(job)} == {1}
    conserved(asr.run("corpus"))
    assert asr.manifest.read_bytes() == prepared.transcribed.read_bytes()


@pytest.mark.deadline(900)
def test_an_array_with_a_model_of_nemo(asr, with_nemo):
    asr.prepare(with_nemo)
    job = asr.array("--array=0-3")
    assert set(asr.cluster.wait_for_jobs(job, timeout_s=800).values()) == {"COMPLETED"}
    run = asr.run("corpus")
    assert (run.receipt()["items"], run.receipt()["merged"]) == (8, 8)
    assert {row["task"] for row in run.rows()} == {0, 1, 2, 3}
    assert asr.manifest.read_bytes() == with_nemo.transcribed.read_bytes()
    assert all(json.loads(line)["text"] for line in asr.manifest.read_text().splitlines())


@pytest.mark.deadline(600)
def test_the_launcher_and_its_sweep(asr, prepared):
    asr.voxarray(
        *("asr", str(asr.manifest), "--model", "pocketsphinx"),
        *("--cluster", "slurm", "--tasks", "4", "--cpus", "1", "--wait"),
        statuses=[1],
    )
    conserved(asr.run("corpus"))
    assert asr.manifest.read_bytes() == prepared.transcribed.read_bytes()
