"""A grid of trainings on a real Slurm: killed, requeued and preempted members go on, and come to the same weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import pytest
from brake import workers
from processes import send, wait_until
from proof import RunFiles
from scene import REPOSITORY, Scene, variables

from tests.lm import making
from tests.lm.sources import write

FLAGS = [*making.FLAGS, "--num-epochs", "40", "--hidden-size", "32", "--train-ratio", "0.8", "--early-stopping", "0"]
GRID = "hidden_size = [8, 16]\nembedding_dim = [4, 8]\n"
MEMBERS = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Units, their manifest, and a grid."""
    folder = tmp_path_factory.mktemp("units")
    _, drawn = making.sequences(200)
    write(folder, drawn, 12)
    (folder / "grid.toml").write_text(GRID)
    return folder


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes of it."""
    home = tmp_path_factory.mktemp("undisturbed")
    argv = [sys.executable, "-m", "pipelines.lm", str(data / "corpus.json"), *FLAGS, "--grid", str(data / "grid.toml")]
    env = {**os.environ, **settings(home)}
    done = subprocess.run(argv, env=env, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return models(home)


def settings(home: Path) -> dict[str, str]:
    return {**variables(home), "VOXARRAY_DEVICE": "cpu"}


def models(home: Path) -> dict[str, bytes]:
    """The best models by name: weights, figures, settings, whole files."""
    return {path.parent.name: path.read_bytes() for path in home.glob("output/checkpoints/*/*/best.safetensors")}


def histories(home: Path) -> dict[str, list]:
    found = home.glob("output/checkpoints/*/*/metrics.json")
    return {path.parent.name: json.loads(path.read_text())["history"] for path in found}


class GridScene(Scene):
    """A home on the cluster where grids are trained."""

    data: Path

    def array(self, *options: str) -> str:
        """`sbatch OPTIONS slurm/train.slurm MANIFEST UNITS --grid FILE …`."""
        script = [str(REPOSITORY / "slurm" / "train.slurm"), str(self.data / "corpus.json"), str(self.data / "units")]
        argv = ["sbatch", "--parsable", "--cpus-per-task=1", "--mem=0", *options, *script, *FLAGS]
        argv += ["--grid", str(self.data / "grid.toml")]
        return self._call(argv, [0], sacct=True, **settings(self.home)).stdout.strip()

    @contextmanager
    def stopped(self, count: int = MEMBERS) -> Iterator[dict[int, int]]:
        """Hold every training once it has a state to go on from; the process of each task."""
        held: dict[int, int] = {}

        def all_held() -> bool:
            for worker in workers(self.cluster.processes, "corpus"):
                if worker.task not in held and self._is_at_work(worker.task):
                    send(worker.pid, signal.SIGSTOP)
                    held[worker.task] = worker.pid
            return len(held) == count

        wait_until(all_held, 300, "the trainings to be in the middle of their work", 0.01)
        assert not list(self.home.glob("output/checkpoints/*/*/metrics.json")), "none was through before it was held"
        try:
            yield held
        finally:
            for pid in held.values():
                send(pid, signal.SIGCONT)

    def _is_at_work(self, task: int) -> bool:
        """Whether the member that is the task's (dealt by position) has saved its state at least once."""
        listing = self.run("corpus").listing()
        return (Path(listing[task]) / "last.pt").exists()

    def log(self, task: int) -> str:
        return "".join(path.read_text() for path in self.home.glob(f"logs/*/launch-*/task_{task:04d}.log"))


@pytest.fixture
def grid(cluster, tmp_path, data) -> GridScene:
    scene = GridScene(cluster, tmp_path / "home", data, None)
    scene.data = data
    return scene


def prove(grid: GridScene, run: RunFiles, undisturbed: dict[str, bytes]) -> None:
    """Every member is done once, and is bit for bit what one undisturbed process makes of it."""
    assert run.places() == set(range(MEMBERS))
    assert set(run.done().values()) == {1}, "nothing was done twice"
    assert (run.receipt()["items"], run.receipt()["merged"]) == (MEMBERS, MEMBERS)
    assert models(grid.home) == undisturbed
    assert all([entry["epoch"] for entry in told] == list(range(1, 41)) for told in histories(grid.home).values())
    (board,) = grid.home.glob("output/checkpoints/*/leaderboard.csv")
    assert len(board.read_text().splitlines()) == 1 + MEMBERS


@pytest.mark.deadline(1200)
def test_killed_and_requeued_members_go_on(grid, undisturbed):
    job = grid.array(f"--array=0-{MEMBERS - 1}")
    with grid.stopped() as held:
        for pid in grid.pids(job, 0, "pipelines.lm"):  # the supervisor, and the worker with it
            send(pid, signal.SIGKILL)
        send(held.pop(1), signal.SIGKILL)  # the worker alone: the task goes on without it
        grid.cluster.scontrol("requeue", f"{job}_2")
        wait_until(lambda: restarts(grid, job).get("2") == 1, 180, "the requeue", 0.2)
        del held[0], held[2]
    states = grid.cluster.wait_for_jobs(job, timeout_s=600)
    assert {name: state for name, state in states.items() if state != "COMPLETED"} == {f"{job}_0": "FAILED"}
    run = grid.run("corpus")
    assert run.places() == {1, 2, 3}
    assert not run.receipt()

    repair = grid.array("--array=0")
    assert set(grid.cluster.wait_for_jobs(repair, timeout_s=360).values()) == {"COMPLETED"}
    assert run.places(1) == {0}, "only what was missing was done"
    for task in (0, 1, 2):
        assert "Going on from step" in grid.log(task)
    assert "Going on from step" not in grid.log(3)
    prove(grid, run, undisturbed)


@pytest.mark.deadline(1200)
def test_preempted_members_go_on(grid, undisturbed):
    """Warned by SIGTERM and given a grace time, every training saves its state at its next step, and is requeued."""
    job = grid.array(f"--array=0-{MEMBERS - 1}", "--partition=lowgrace")
    with grid.stopped():
        high = grid.cluster.preempt(seconds=0.5)
        wait_until(lambda: any("PreemptTime" in record for record in grid.cluster.job(job)), 90, "preemption", 0.2)
    grid.cluster.wait_for_jobs(high)
    assert set(grid.cluster.wait_for_jobs(job, timeout_s=750).values()) == {"COMPLETED"}
    assert set(restarts(grid, job).values()) == {1}
    for task in range(MEMBERS):
        assert "stopped at step" in grid.log(task)
        assert "Going on from step" in grid.log(task)
    prove(grid, grid.run("corpus"), undisturbed)


def restarts(grid: GridScene, job: str) -> dict[str, int]:
    return {record.get("ArrayTaskId", "0"): int(record["Restarts"]) for record in grid.cluster.job(job)}
