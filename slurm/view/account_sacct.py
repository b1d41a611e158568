"""What sacct says of a run's jobs. Every requeued life of a job is a stretch of its own (`sacct --duplicates`)."""

from __future__ import annotations

import calendar
import re
import shutil
import time
from typing import Iterable, Iterator, Mapping, NamedTuple, Optional, Sequence

from pipelines.core.errors import ClusterNotFit
from pipelines.core.progress import Snapshot
from pipelines.core.run import Run
from slurm import cluster, request

_FIELDS = (
    *("JobID", "State", "Start", "End", "ElapsedRaw", "AllocCPUS", "AllocTRES", "ReqMem", "TimelimitRaw"),
    *("TotalCPU", "MaxRSS", "JobName"),
)
PLAIN = "sbatch"
"""The cluster of a launch that an array of plain sbatch made."""
_TIMEOUT_S = 60.0
_IDS_AT_ONCE = 500
_ID = re.compile(r"(\d+)(?:_(\d+))?(?:\.(\w+))?")
_SIZE = re.compile(r"([\d.]+)([KMGTP]?)(?:[nc])?")
_UNITS = {"": 1 / 2**20, "K": 1 / 2**10, "M": 1.0, "G": 2.0**10, "T": 2.0**20, "P": 2.0**30}
_LATE_S = 3600.0
"""Clocks may differ by so much; a job that ended earlier before its launch has the same id by chance."""


class Stretch(NamedTuple):
    """Time in which processors were held for a task (None: for the sweep). Times in seconds since the epoch.

    `cpus`, `gpus`, `mem_mb`, `limit_s`: what was held; `cpu_s`: processor seconds used; `rss_mb`: the largest memory
    of one of its steps. None: unknown. `used_by_sacct`: whether `cpu_s` is sacct's; else the heartbeats'. `state` is
    empty where the files alone tell of it.
    """

    launch: int
    task: Optional[int]
    state: str
    start: float
    end: Optional[float]
    elapsed_s: float
    cpus: Optional[int] = None
    gpus: Optional[int] = None
    mem_mb: Optional[float] = None
    limit_s: Optional[float] = None
    cpu_s: Optional[float] = None
    rss_mb: Optional[float] = None
    used_by_sacct: bool = True


class Answer(NamedTuple):
    """The stretches that sacct knows, the launches that it was asked about, and why it told nothing, if so."""

    stretches: list[Stretch]
    asked: list[int]
    silence: Optional[str]


class _Known(NamedTuple):
    """A job id of a launch: the task of its index 0 (None: the sweep), its name, and exact tasks by the index.

    `gpus`: what a task asked for, where that is on record.
    """

    launch: int
    first_task: Optional[int]
    name: Optional[str]
    since: float
    is_array: bool
    gpus: Optional[int] = None


def ask(run: Run, snaps: Iterable[Snapshot]) -> Answer:
    """What sacct knows of the jobs of these launches; nothing where none were Slurm's, or where it does not answer."""
    jobs = {job: known for snap in snaps for job, known in _jobs(run, snap)}
    asked = sorted({known.launch for known in jobs.values()})
    if not jobs:
        return Answer([], [], None)
    if shutil.which("sacct") is None:
        return Answer([], asked, "there is no sacct here")
    found: list[Stretch] = []
    ids = sorted(jobs)
    try:
        for start in range(0, len(ids), _IDS_AT_ONCE):
            found += parsed(_call(ids[start : start + _IDS_AT_ONCE]), jobs)
    except ClusterNotFit as error:
        said = error.said if isinstance(error, cluster.CommandError) else str(error)
        return Answer([], asked, f"sacct does not answer ({said[:160].strip() or 'it said nothing'})")
    return Answer(found, asked, None if found else "sacct knows none of its jobs")


def _jobs(run: Run, snap: Snapshot) -> Iterator[tuple[str, _Known]]:
    """The job ids of a launch, of the launcher, of a plain array, or of a plain job that is named as its script."""
    record = snap.record
    since = float(calendar.timegm(time.strptime(record.created, "%Y-%m-%dT%H:%M:%SZ"))) - _LATE_S
    jobs = request.read(run, record.number)
    if jobs is None and record.cluster == PLAIN and record.job:
        yield record.job, _Known(record.number, 0, None, since, True)
    elif jobs is None and record.tasks == 1:  # by hand in a job of another name: that is not all this run's
        for name in within_jobs(snap):
            yield name, _Known(record.number, 0, run.plan.pipeline, since, False)
    if jobs is None or jobs.cluster != "slurm":
        return
    for job in jobs.jobs:
        first, gpus = (None, 0) if job.kind == request.SWEEP else (job.first_task, jobs.request.gpu_count)
        yield job.job_id, _Known(record.number, first, jobs.name, since, job.kind == request.ARRAY, gpus)


def within_jobs(snap: Snapshot) -> set[str]:
    """The jobs that the tasks of a launch say they were in."""
    return {view.beat.job for view in snap.tasks if view.beat is not None and view.beat.job}


def _call(ids: Sequence[str]) -> str:
    # Times as seconds since the epoch: neither the user's format nor a change of the clocks can spoil them.
    words = ["env", "SLURM_TIME_FORMAT=%s", "sacct", "--noheader", "--parsable2", "--duplicates"]
    return cluster.call(*words, f"--jobs={','.join(ids)}", f"--format={','.join(_FIELDS)}", timeout_s=_TIMEOUT_S)


def parsed(text: str, jobs: Mapping[str, _Known]) -> list[Stretch]:
    """The stretches in sacct's lines: an allocation's line is followed by those of its steps, which know memory."""
    found: list[Stretch] = []
    takes_steps = False
    for line in text.splitlines():
        fields = dict(zip(_FIELDS, line.split("|", len(_FIELDS) - 1)))
        match = _ID.fullmatch(fields.get("JobID", ""))
        if match is None or len(fields) < len(_FIELDS):
            takes_steps = takes_steps and match is not None
            continue
        if match[3] is None:
            stretch = _allocation(fields, match, jobs)
            takes_steps = stretch is not None
            found += [stretch] if stretch else []
        elif takes_steps:
            rss = megabytes(fields["MaxRSS"])
            if rss is not None:
                found[-1] = found[-1]._replace(rss_mb=max(rss, found[-1].rss_mb or 0.0))
    return found


def _allocation(fields: Mapping[str, str], match: re.Match[str], jobs: Mapping[str, _Known]) -> Optional[Stretch]:
    """One life of a job; None where it never began, or is another's of the same id."""
    known = jobs.get(match[1])
    start = _number(fields["Start"])
    if known is None or start is None:
        return None
    elapsed, end = _number(fields["ElapsedRaw"]) or 0.0, _number(fields["End"])
    foreign = known.name is not None and not fields["JobName"].startswith(known.name)
    if foreign or (end if end is not None else start + elapsed) < known.since:
        return None
    task = None if known.first_task is None else known.first_task + int(match[2] or 0) * known.is_array
    held = dict(pair.split("=", 1) for pair in fields["AllocTRES"].split(",") if "=" in pair)
    minutes = _number(fields["TimelimitRaw"])
    cpus = int(_number(fields["AllocCPUS"]) or 0) or None
    return Stretch(
        known.launch,
        task,
        fields["State"].split(" ")[0],
        start,
        end,
        elapsed,
        cpus,
        known.gpus if (gpus := _gpus(held)) is None else gpus,
        megabytes(held.get("mem", "")) or _asked(fields["ReqMem"], cpus or 1),
        minutes * 60 if minutes else None,
        seconds(fields["TotalCPU"]) or None,  # nothing at all means that this cluster does not count it
    )


def _gpus(held: Mapping[str, str]) -> Optional[int]:
    """GPUs among what was held. None where there are none, which may mean that this cluster does not count them."""
    kinds = [_number(text) or 0.0 for name, text in held.items() if name.startswith("gres/gpu:")]
    whole = _number(held.get("gres/gpu", ""))
    if whole is None and not kinds:
        return None
    return int(sum(kinds) if whole is None else whole)


def _asked(text: str, cpus: int) -> Optional[float]:
    """Megabytes of `8G`, or of older Slurm's `8Gn` (a node) and `1Gc` (a processor)."""
    size = megabytes(text)
    return size * cpus if size and text.endswith("c") else size


def _number(text: str) -> Optional[float]:
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text.strip()) else None


def megabytes(text: str) -> Optional[float]:
    """Megabytes of `1234K`, `1.5G`; a bare number is bytes. None where there is nothing, or no memory at all."""
    match = _SIZE.fullmatch(text.strip())
    return float(match[1]) * _UNITS[match[2]] or None if match else None


def seconds(text: str) -> float:
    """Seconds of `12:34.567`, `01:12:34`, `2-01:12:34`; 0 of anything else."""
    days, dash, clock = text.strip().rpartition("-")
    parts = clock.split(":")
    if not 2 <= len(parts) <= 3 or not all(_number(part) is not None for part in [*parts, days if dash else "0"]):
        return 0.0
    hours, minutes, rest = (["0"] * (3 - len(parts))) + parts
    return float(days or 0) * 86400 + float(hours) * 3600 + float(minutes) * 60 + float(rest)
