"""Whether a run is at work right now: a second launch beside a live one would do the same items twice."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Optional

from pipelines.core.errors import ClusterNotFit
from pipelines.core.launches import LaunchRecord
from pipelines.core.run import Run
from slurm import cluster, request, sweep
from slurm.cluster import Queued
from slurm.request import Jobs


def launch_at_work(run: Run) -> Optional[int]:
    """The latest launch of a run with jobs in the queue or a live pump, if any."""
    for launch in reversed(run.launch_numbers()):
        verdict = sweep.read(run, launch)
        if verdict is not None and verdict.outcome != sweep.CANCELLED:
            return None
        jobs = request.read(run, launch)
        if is_at_work(jobs) if jobs is not None else _is_array_at_work(run.record(launch)):
            return launch
    return None


def _is_array_at_work(record: LaunchRecord) -> bool:
    """Whether a launch of plain sbatch has tasks in the queue; nobody knows where its cluster cannot be asked."""
    return record.job is not None and cluster.fitness() is None and bool(cluster.queue([record.job]))


def is_at_work(jobs: Jobs) -> bool:
    """Whether any job of a launch has not ended: asked of the scheduler or process table, never of a file's age."""
    if jobs.cluster == "local":
        return jobs.host == socket.gethostname() and any(is_pump(job.job_id) for job in jobs.jobs)
    if cluster.fitness() is not None:
        raise ClusterNotFit(
            f"This run has jobs on Slurm ({request.spoken(jobs)}), and Slurm cannot be reached from "
            f"{socket.gethostname()} to ask how they stand. Give the command on a node of that cluster."
        )
    return bool(queued(jobs))


def queued(jobs: Jobs) -> list[Queued]:
    """The jobs of a launch that are in the queue. A cluster gives job ids anew one day, so names must agree, too."""
    found = cluster.queue(jobs.ids) if jobs.ids else []
    if jobs.state != request.SUBMITTED:  # its launcher may have died between sbatch and noting the id
        found += cluster.queue(name=f"{jobs.name},{jobs.name}{request.SWEEP_SUFFIX}")
    return [entry for entry in found if entry.name.startswith(jobs.name)]


def is_half_submitted(run: Run, launch: int) -> bool:
    """Whether a launch on Slurm was left without all of its jobs: its launcher died, or Slurm refused the rest."""
    jobs = request.read(run, launch)
    return jobs is not None and jobs.cluster == "slurm" and jobs.state != request.SUBMITTED


def is_pump(pid: str) -> bool:
    """Whether a process is a live pump (process ids come again, so its command is looked at)."""
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True
    return b"slurm.local" in command


def spoken(run: Run, launch: int) -> str:
    """The message for a run that is at work already."""
    jobs = request.read(run, launch)
    what = request.spoken(jobs) if jobs is not None else f"array {run.record(launch).job}"
    return (
        f"{run.id} is at work already: launch {launch}, {what}. Nothing new was launched. `./voxarray status "
        f"{run.id}` shows how far it is; `./voxarray cancel {run.id}` ends it, and then the same command launches "
        "what is missing."
    )
