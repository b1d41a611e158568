"""A launch becomes Slurm jobs, through submitit: arrays of its tasks, and the sweep that waits for all of them."""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Optional

from pipelines.core import clock, paths, requeue
from pipelines.core.errors import ClusterNotFit
from pipelines.core.launches import LaunchRecord
from pipelines.core.run import Run
from slurm import cluster, job, request
from slurm.request import Job, Jobs, Request

log = logging.getLogger(__name__)

_EXPORTED = ("VOXARRAY_", "PYTHONNOUSERSITE")
_LONGEST_WARNING_S = 120
_SWEEP_CPUS, _SWEEP_MEM_MB = 1, 4096
_SWEEP_LEAST_MIN, _SWEEP_MOST_MIN = 30, 120


def tasks_with_items(run: Run, launch: int) -> int:
    """How many tasks are worth submitting: sharding fills them from 0 on; those after the last that has items rest."""
    shares = run.deal(launch).shares
    return max((task + 1 for task, share in enumerate(shares) if share.items), default=0)


def order(run: Run, launch: int, task: int, wanted: Request) -> str:
    """The argument of `slurm.job.run_task`."""
    return json.dumps(
        {
            "run": run.id,
            "launch": launch,
            "task": task,
            "cpus": wanted.cpus,
            "gpus": wanted.gpu_count,
            "memory_mb": wanted.mem_mb,
        }
    )


def chunks(tasks: int, most: int) -> list[tuple[int, int]]:
    """(first task, number of tasks) of the arrays that `tasks` tasks need where one array takes at most `most`."""
    return [(first, min(most, tasks - first)) for first in range(0, tasks, most)]


def parallel(wanted: Optional[int], arrays: list[tuple[int, int]]) -> list[int]:
    """Each array's `%N`: the arrays run side by side, so they share --max-parallel by their sizes, at least 1 each."""
    if wanted is None:
        return [number for _, number in arrays]
    total = sum(number for _, number in arrays)
    return [max(1, wanted * number // total) for _, number in arrays]


def warning_s(time_min: int) -> int:
    """How many seconds before the time limit the task is warned: 2 minutes, less where the limit itself is short."""
    return max(10, min(_LONGEST_WARNING_S, time_min * 60 // 5))


def setup() -> list[str]:
    """Shell lines before the job's Python: where the code and the user's data are, whatever sbatch exports."""
    values = {name: value for name, value in os.environ.items() if name.startswith(_EXPORTED)}
    values["VOXARRAY_HOME"] = str(paths.home())
    values["PYTHONPATH"] = str(paths.repository())
    return [f"export {name}={shlex.quote(value)}" for name, value in sorted(values.items())]


def parameters(run: Run, launch: int, wanted: Request) -> dict[str, Any]:
    """Submitit's parameters of a launch's arrays."""
    value: dict[str, Any] = {
        "job_name": request.job_name(run, launch),
        "time": wanted.time,
        "mem": f"{wanted.mem_mb}M",
        "cpus_per_task": wanted.cpus,
        "partition": wanted.partition,
        "account": wanted.account,
        "qos": wanted.qos,
        "constraint": wanted.constraint,
        "gpus_per_node": wanted.gpus if wanted.gpu_count else None,
        "signal_delay_s": warning_s(wanted.time),
        "stderr_to_stdout": True,
        "setup": setup(),
        # Since Slurm 22.05 a step does not inherit the job's processors of itself.
        "srun_args": [f"--cpus-per-task={wanted.cpus}"],
        "wckey": None,  # submitit's default is refused where wckeys are enforced
        "additional_parameters": {"requeue": True, "chdir": str(paths.repository()), **wanted.sbatch},
    }
    return {key: entry for key, entry in value.items() if entry is not None or key == "wckey"}


def sweep_parameters(run: Run, launch: int, wanted: Request, ids: list[str]) -> dict[str, Any]:
    """Submitit's parameters of the sweep: one processor, no GPU, after the end of all arrays however they end."""
    # A partition that takes the tasks' time takes this one, too; a merge needs minutes.
    own = {"time": min(_SWEEP_MOST_MIN, max(_SWEEP_LEAST_MIN, wanted.time)), **wanted.sweep}
    value = parameters(run, launch, wanted)
    value.pop("gpus_per_node", None)
    value.update(
        job_name=value["job_name"] + request.SWEEP_SUFFIX,
        cpus_per_task=_SWEEP_CPUS,
        mem=f"{_SWEEP_MEM_MB}M",
        srun_args=[f"--cpus-per-task={_SWEEP_CPUS}"],
        dependency="afterany:" + ":".join(ids),
    )
    value.update(own)
    value["signal_delay_s"] = warning_s(value["time"])
    return value


def folder(run: Run, launch: int) -> Path:
    """A fresh folder for submitit's files: old pickles would be taken for this launch's, job ids come again."""
    base = paths.logs(run.id, launch) / "submitit"
    candidate, number = base, 0
    while candidate.exists():
        number += 1
        candidate = base.with_name(f"submitit-{number}")
    return candidate


def submit(run: Run, record: LaunchRecord, wanted: Request) -> Jobs:
    """Submit a published launch: its arrays, then its sweep; one whose submission broke off is submitted to its end.

    ClusterNotFit says what was submitted before an error.
    """
    jobs = request.begin(run, record.number, "slurm", wanted)
    where = folder(run, record.number)
    first = max((entry.first_task + entry.tasks for entry in jobs.jobs), default=0)
    left = tasks_with_items(run, record.number) - first
    arrays = [(first + begin, number) for begin, number in chunks(left, cluster.max_array_size())]
    with cluster.outside_of_jobs(), _refusals(run, record.number, jobs):
        for (start, number), most in zip(arrays, parallel(wanted.max_parallel, arrays)):
            values = {**parameters(run, record.number, wanted), "array_parallelism": most}
            orders = [order(run, record.number, task, wanted) for task in range(start, start + number)]
            with requeue.deferred():  # what is submitted is on record
                made = _executor(where, wanted, values).map_array(job.run_task, orders)
                kind = request.ARRAY if number > 1 else request.JOB
                jobs.jobs.append(Job(made[0].job_id.split("_")[0], start, number, kind))
                request.write(run, record.number, jobs)
        with requeue.deferred():
            executor = _executor(where, wanted, sweep_parameters(run, record.number, wanted, jobs.ids))
            swept = executor.submit(job.run_sweep, json.dumps({"run": run.id, "launch": record.number}))
            jobs.jobs.append(Job(swept.job_id, 0, 0, request.SWEEP))
            jobs.state, jobs.submitted = request.SUBMITTED, clock.iso()
            request.write(run, record.number, jobs)
    return jobs


def _executor(where: Path, wanted: Request, values: dict[str, Any]) -> Any:
    from submitit import SlurmExecutor

    executor = SlurmExecutor(where, python=shlex.quote(wanted.python))
    executor.update_parameters(**values)
    return executor


def script(where: Path, wanted: Request, values: dict[str, Any], tasks: int) -> str:
    """The script that submitit would give to sbatch, for a dry run."""
    executor = _executor(where, wanted, values)
    if tasks > 1:
        executor.parameters["map_count"] = tasks
    return str(executor._make_submission_file_text(executor._submitit_command_str, "dry"))  # noqa: SLF001


@contextmanager
def _refusals(run: Run, launch: int, jobs: Jobs) -> Iterator[None]:
    """Tell a refused submission in one paragraph; what was submitted before stays and is on record."""
    try:
        yield
    except Exception as error:
        said = reason(error)
        jobs.state = request.FAILED
        request.write(run, launch, jobs)
        done = ", ".join(entry.job_id for entry in jobs.jobs)
        raise ClusterNotFit(
            f"Slurm refused a job of {run.id} ({paths.launch_name(launch)}): {said}. "
            + (f"Submitted before that, and going on: {done}; nothing will merge by itself. " if done else "")
            + f"{advice(said)} Then `./voxarray retry {run.id}` launches whatever is still missing."
        ) from error


def reason(error: Exception) -> str:
    """What sbatch said when it refused."""
    text = str(error)
    if isinstance(error, subprocess.CalledProcessError):
        text = (error.stderr or error.output or b"").decode(errors="replace") or str(error)
    lines = [line.strip() for line in text.splitlines() if "error" in line.lower()] or text.split("\n")
    return " ".join(lines[-2:]).replace("sbatch: ", "").strip().rstrip(".")


def advice(said: str) -> str:
    """What to do about sbatch's refusal."""
    text = said.lower()
    for marks, words in _ADVICE:
        if any(mark in text for mark in marks):
            return words
    return "`./voxarray doctor` tells what this cluster takes; a dry run (--dry-run) shows what was asked for."


_ADVICE = (
    (
        ("qosmaxsubmit", "maxsubmit", "job violates accounting/qos policy", "assocmaxsubmit"),
        "Your account or QOS allows fewer jobs at a time: wait until some have ended, or take fewer tasks (--tasks).",
    ),
    (("invalid partition",), "`sinfo -s` lists the partitions; name one with --partition, or in a profile."),
    (("invalid account",), "`sacctmgr show associations user=$USER` lists your accounts; name one with --account."),
    (("invalid qos",), "Name a QOS that your account may use with --qos."),
    (
        ("node configuration is not available", "more processors", "memory specification"),
        "No node has so much: ask for less with --cpus, --mem or --gpus, or for another --partition.",
    ),
    (
        ("invalid generic resource", "gres"),
        "This cluster knows no such GPUs: see `sinfo -o '%P %G'`, and give --gpus.",
    ),
    (("time limit", "timelimit"), "The partition allows less time: ask for less with --time."),
    (("array",), "The array is larger than the cluster takes: take fewer tasks (--tasks)."),
    (("unable to contact", "socket timed out", "timed out"), "Slurm's controller does not answer; try again later."),
)
