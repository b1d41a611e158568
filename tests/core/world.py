"""What the tests of the engine stand on: a home of one's own, manifests, runs of the toy pipelines, faked arrays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence
from unittest import mock

from pipelines.core import launches, merge, parts, provenance, registry
from pipelines.core.errors import DONE
from pipelines.core.manifest import Item
from pipelines.core.pipeline import Resources
from pipelines.core.run import Run, Wish
from pipelines.core.task import TaskLoop

REPOSITORY = Path(__file__).resolve().parents[2]
TOYS = REPOSITORY / "tests" / "toys"
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Fsync costs nothing in memory, and these tests make tens of thousands of files."""


def seed() -> int:
    """The seed of everything random in these tests."""
    return int(os.environ.get("VOXARRAY_SEED", "20261121"))


class World:
    """A home in a temporary folder, with the environment variables that point to it. Use it with `with`."""

    def __init__(self, **variables: str) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="voxarray-test-", dir=MEMORY))
        self.home = self.root / "home"
        self.home.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "VOXARRAY_"))}
        self.variables = {
            **kept,
            "VOXARRAY_HOME": str(self.home),
            "VOXARRAY_PIPELINES": str(TOYS),
            "VOXARRAY_HEARTBEAT_S": "0.2",
            "VOXARRAY_LOCK_WAIT_S": "20",
            "PYTHONPATH": str(REPOSITORY),
            "TOY_SEEN": str(self.root / "seen"),
            **variables,
        }
        self._started: list[subprocess.Popen[str]] = []
        self._patches = [
            mock.patch.dict(os.environ, self.variables, clear=True),
            # Git is asked once in test_identity; a process for every run of the property tests would take minutes.
            mock.patch.object(provenance, "code", return_value=(provenance.Code("0" * 40, modified=False), b"")),
        ]

    def __enter__(self) -> World:  # noqa: PYI034 - `Self` is not in Python 3.9
        for patch in self._patches:
            patch.start()
        return self

    def __exit__(self, *_: object) -> None:
        for patch in reversed(self._patches):
            patch.stop()
        for process in self._started:
            if process.poll() is None:  # a test failed halfway
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        shutil.rmtree(self.root, ignore_errors=True)

    # -- manifests ----------------------------------------------------------------------------------------------------

    def rows(self, count: int, **fields: Any) -> List[Dict[str, Any]]:
        """Rows of a corpus that needs no audio."""
        return [{"audio_filepath": f"/corpus/{n:05d}.wav", "duration": 1.0 + n % 7, **fields} for n in range(count)]

    def write(self, rows: Iterable[Dict[str, Any]], name: str = "corpus.json") -> Path:
        """A manifest of these rows, written as Python's json does."""
        path = self.root / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    def manifest(self, count: int, **fields: Any) -> Path:
        """A manifest of that many rows."""
        return self.write(self.rows(count, **fields))

    # -- runs ---------------------------------------------------------------------------------------------------------

    def run(self, manifest: Path, pipeline: str = "tone", **parameters: Any) -> Run:
        """The run of the toy over a manifest."""
        return Run.create(registry.find(pipeline), manifest, None, parameters or {"factor": 1.0})

    def undisturbed(self, rows: Sequence[Dict[str, Any]], **variables: str) -> bytes:
        """The merged manifest of a run of these rows that nothing disturbed, with one task."""
        with World(TOY_NAP="0", **variables) as other:
            path = other.write(rows)
            status, said = other.command(path)
            assert status in (0, 1), said
            return path.read_bytes()

    def command(self, *arguments: object, pipeline: str = "tone", **variables: str) -> tuple[int, str]:
        """Give a toy's command line as a user does. Returns exit status and what it said."""
        process = self.start(*arguments, pipeline=pipeline, **variables)
        said, _ = process.communicate(timeout=180)
        return process.returncode, said

    def start(self, *arguments: object, pipeline: str = "tone", **variables: str) -> subprocess.Popen[str]:
        """The same, not waited for: the leader of its own process group."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.core.toy", pipeline, *map(str, arguments)],
            env={**self.variables, **variables},
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def array(
        self, job: str, tasks: Sequence[int], *arguments: object, only: Optional[Sequence[int]] = None, **more: str
    ) -> List[tuple[int, str]]:
        """Run an sbatch array (`only`: some of its tasks), all at once. Returns status and words of each task."""
        chosen = tasks if only is None else only
        processes = [self.start(*arguments, **slurm_task(job, tasks, task), **more) for task in chosen]
        said = [process.communicate(timeout=180)[0] for process in processes]
        return [(process.returncode, words) for process, words in zip(processes, said)]

    def seen(self) -> List[str]:
        """The file names of the items that the toy's `process` was given since the last call, sorted."""
        path = Path(self.variables["TOY_SEEN"])
        if not path.exists():
            return []
        names = sorted(path.read_text(encoding="utf-8").split())
        path.unlink()
        return names


def slurm_task(job: str, tasks: Sequence[int], task: int) -> Dict[str, str]:
    """The variables that Slurm sets for one task of an array."""
    return {
        "SLURM_ARRAY_JOB_ID": job,
        "SLURM_ARRAY_TASK_ID": str(task),
        "SLURM_ARRAY_TASK_COUNT": str(len(tasks)),
        "SLURM_ARRAY_TASK_MIN": str(min(tasks)),
        "SLURM_ARRAY_TASK_MAX": str(max(tasks)),
        "SLURM_JOB_ID": str(int(job) + task),
    }


def launch(run: Run, tasks: int = 1, **wish: Any) -> int:
    """Make a launch of the run; its number."""
    record = run.new_launch(Wish(tasks, **wish), say=lambda _: None)
    assert record is not None
    return record.number


def array_launch(run: Run, job: str, tasks: int, only: Iterable[int]) -> int:
    """What `World.array` leaves behind, without its processes: some tasks of an array worked, the others never ran."""
    number = launch(run, tasks, deal=launches.POSITION, cluster="sbatch", job=job, submitted_tasks=tasks)
    for task in only:
        assert TaskLoop(run, number, task, Resources()).work() == DONE
    return number


def finish(run: Run, number: int, items: Iterable[Item], task: int = 0, **result: Any) -> Path:
    """Publish one part of `task` that says these items are done."""
    writer = parts.PartWriter(run.parts_folder(number), run.id, number, task)
    for item in items:
        writer.done(item, result or {"tone": item.key[:6]}, item.duration or 0.0)
    path = writer.publish()
    assert path is not None
    return path


def settle(run: Run, number: int) -> None:
    """Publish parts that say every item of a launch is done."""
    deal = run.deal(number)
    for task, share in enumerate(deal.shares):
        if share.items:
            finish(run, number, deal.items(task), task)


def conserved(receipt: merge.Receipt, partial: bool = False) -> merge.Receipt:
    """The receipt, once it is shown that nothing was lost or doubled."""
    assert receipt.items == receipt.merged + receipt.quarantined + receipt.missing
    assert receipt.rows_read == receipt.merged + receipt.quarantined + receipt.spare + receipt.outside
    assert partial or not receipt.missing
    return receipt


def decoded(path: Path) -> List[Dict[str, Any]]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def tree(folder: Path) -> Dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def tiny_disk(at: Path, size: str = "400k"):
    """A file system of its own that fills up at once, mounted at `at`; only root can have one."""
    at.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "voxarray-test", str(at)], capture_output=True, check=False
    )
    if done.returncode:
        yield None
        return
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)
