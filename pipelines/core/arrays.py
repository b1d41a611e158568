"""A process's place in a Slurm array, and what only one of an array's tasks does."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple, Optional

from pipelines.core import lock, paths, plan, store
from pipelines.core.errors import LockedError
from pipelines.core.pipeline import Parameters, Pipeline
from pipelines.core.run import Run

SETUP_WAIT_S = 6 * 3600.0


class ArrayTask(NamedTuple):
    """This process's place in a Slurm array, from the environment."""

    job: str
    task: int
    submitted: int
    lowest: int
    highest: int

    @property
    def whole(self) -> bool:
        """Whether the array runs 0 … N-1 without gaps: then its size says how many tasks there are."""
        return self.lowest == 0 and self.submitted == self.highest + 1

    @classmethod
    def from_environment(cls) -> Optional[ArrayTask]:
        """None outside of an array."""
        get = os.environ.get
        job, task = get("SLURM_ARRAY_JOB_ID"), get("SLURM_ARRAY_TASK_ID")
        if not job or not task:
            return None
        return cls(
            job,
            int(task),
            int(get("SLURM_ARRAY_TASK_COUNT", "1")),
            int(get("SLURM_ARRAY_TASK_MIN", task)),
            int(get("SLURM_ARRAY_TASK_MAX", task)),
        )


def started_anew(pipeline: Pipeline, source: Path, stem: Optional[Path], parameters: Parameters) -> Run:
    """The run of a command with --fresh: an earlier one is moved aside, if it is not at work.

    A Slurm job does so once: not each task of an array, nor each life of a job that is requeued.
    """
    name = plan.run_id(pipeline.name, source, stem, parameters)
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    job = os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ.get("SLURM_JOB_ID") or "none"
    mark = paths.run_folder(name) / f"fresh.{job}"
    comes_again = "SLURM_ARRAY_JOB_ID" in os.environ or os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    with lock.held(paths.home() / "output" / "locks" / f"{digest}.lock", SETUP_WAIT_S, f"The fresh start of {name}"):
        fresh = not (comes_again and mark.exists())
        if fresh:
            refuse_at_work(name)
        run = Run.create(pipeline, source, stem, parameters, fresh)
        store.ensure(mark, b"\n")
    return run


def refuse_at_work(name: str) -> None:
    """Raise LockedError where a run that is to be moved aside is at work: its tasks would go on writing there."""
    busy = lock.at_work((paths.run_folder(name) / "state").glob("launch-*"))
    if busy:
        raise LockedError(
            f"--fresh cannot move {name} aside, as it is at work: {busy}. Let it finish, or cancel it (`./voxarray "
            f"cancel {name}`, or `scancel`), then give the same command again."
        )
