"""A launch's request to the scheduler as plain data, and the file that tells which jobs it became."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping, Optional

import msgspec

from pipelines.core import clock, launches, provenance, store
from pipelines.core.run import Run
from slurm import resources
from slurm.resources import Setting

SUBMITTING, SUBMITTED, FAILED = "submitting", "submitted", "failed"
ARRAY, JOB, SWEEP, PUMP = "array", "job", "sweep", "pump"
SWEEP_SUFFIX = ".sweep"
"""What the sweep's name has after the launch's."""
ROUNDS = 3
"""How many times the sweep launches what is missing once more."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What each task asks for, the same in every round. `time`: minutes; `mem_mb`: megabytes; `gpus`: 1 or a100:1."""

    cpus: int = 1
    gpus: str = "0"
    mem_mb: int = 4096
    time: int = 240
    partition: Optional[str] = None
    account: Optional[str] = None
    qos: Optional[str] = None
    constraint: Optional[str] = None
    max_parallel: Optional[int] = None
    sbatch: dict[str, Any] = {}
    sweep: dict[str, Any] = {}
    rounds: int = ROUNDS
    limit: Optional[int] = None
    python: str = ""

    @property
    def gpu_count(self) -> int:
        """GPUs of one task."""
        return resources.gpu_count(self.gpus)

    @classmethod
    def of(cls, settings: Mapping[str, Setting], **more: Any) -> Request:
        """The request that resolved settings amount to. UsageError where a value makes no sense."""
        value = {key: setting.value for key, setting in settings.items()}
        resources.gpu_count(value["gpus"])
        return cls(
            cpus=resources.positive("--cpus", value["cpus"]),
            gpus=str(value["gpus"]),
            mem_mb=resources.megabytes(value["mem"]),
            time=resources.minutes(value["time"]),
            partition=value.get("partition"),
            account=value.get("account"),
            qos=value.get("qos"),
            constraint=value.get("constraint"),
            max_parallel=resources.positive("--max-parallel", value["max_parallel"])
            if "max_parallel" in value
            else None,
            **more,
        )


class Job(msgspec.Struct, frozen=True):
    """One job of a launch: its id, its tasks (`first_task` … `first_task + tasks - 1`), and its kind.

    kind: array; job (a single task, which has no array); sweep; pump (a process of this launcher; the id is its pid).
    """

    job_id: str
    first_task: int
    tasks: int
    kind: str


class Jobs(msgspec.Struct, kw_only=True):
    """`launch-NNN.jobs.json`. `state`: submitting (or its launcher died while at it), submitted, failed (refused)."""

    cluster: str
    jobs: list[Job]
    state: str
    request: Request
    name: str
    host: str
    submitted: Optional[str] = None
    format: int = 1

    @property
    def ids(self) -> list[str]:
        """Ids of all jobs."""
        return [job.job_id for job in self.jobs]


def job_name(run: Run, launch: int) -> str:
    """The name of a launch's jobs in the scheduler's queue."""
    return f"{run.plan.pipeline}.{run.id}.{launch:03d}"


def begin(run: Run, launch: int, cluster: str, request: Request) -> Jobs:
    """Note that a launch is being submitted, before anything is: jobs of a launcher that died can be found by name.

    Jobs that an earlier try noted stay on record.
    """
    earlier = read(run, launch)
    jobs = Jobs(
        cluster=cluster,
        jobs=earlier.jobs if earlier is not None and cluster == "slurm" else [],
        state=SUBMITTING,
        request=request,
        name=job_name(run, launch),
        host=provenance.host(),
        submitted=clock.iso(),
    )
    write(run, launch, jobs)
    return jobs


def write(run: Run, launch: int, jobs: Jobs) -> None:
    """Publish the jobs of a launch."""
    store.write_json(launches.jobs_path(run.folder, launch), jobs)


def read(run: Run, launch: int) -> Optional[Jobs]:
    """The jobs of a launch; None where none were submitted (plain sbatch, one process, or a launcher that died)."""
    try:
        return msgspec.json.decode(launches.jobs_path(run.folder, launch).read_bytes(), type=Jobs)
    except (OSError, msgspec.MsgspecError):
        return None


def cancelled_path(run: Run, launch: int) -> Path:
    """The marker that `cancel` leaves: the sweep must not bring this launch back."""
    return run.state_folder(launch) / "cancelled"


def cancel(run: Run, launch: int) -> None:
    """Leave that marker."""
    store.publish(cancelled_path(run, launch), f"{clock.iso()}\n".encode())


def is_cancelled(run: Run, launch: int) -> bool:
    """Whether `cancel` was given for a launch."""
    return cancelled_path(run, launch).exists()


def spoken(jobs: Jobs) -> str:
    """The jobs of a launch for people."""
    words = {
        ARRAY: "array {0.job_id} ({0.tasks} tasks)",
        JOB: "job {0.job_id} (1 task)",
        SWEEP: "sweep {0.job_id}",
        PUMP: "process {0.job_id}",
    }
    return ", ".join(words[job.kind].format(job) for job in jobs.jobs)
