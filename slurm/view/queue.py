"""What the scheduler says of tasks that have not begun. Asked briefly; without an answer the files have to do."""

from __future__ import annotations

import shutil
from typing import NamedTuple, Optional

from pipelines.core import clock, provenance
from pipelines.core.errors import ClusterNotFit
from pipelines.core.launches import LaunchRecord
from pipelines.core.progress import Snapshot
from pipelines.core.run import Run
from slurm import active, cluster, request, states

_TIMEOUT_S = 4.0
_ASK_AGAIN_S = 15.0
_FRESH_S = 30.0
"""A process that was just started may take so long until its first heartbeat."""
_SUBMITTED_S = 900.0
"""Within that time, a launch has been submitted, or its launcher is dead."""
_MOST = 100_000
_FORMAT = "--format=%F|%K|%T|%r|%j"


class Waiting(NamedTuple):
    """What is known of the tasks of one launch that show no sign of life.

    `known`: whether the scheduler (or this machine's process table) was asked and answered; then a task that is not in
    `states` (task → its state in the queue) will not begin by itself. `notes`: what keeps jobs waiting, for people.
    `sweep`: whether the sweep is still to come, which merges or launches what is missing.
    """

    known: bool
    states: dict[int, str]
    notes: list[str]
    sweep: bool = False


UNKNOWN = Waiting(False, {}, [])


class Queue:
    """Asks for the launches that have tasks without a sign of life; answers are kept for a while."""

    def __init__(self, ask: bool = True) -> None:
        self._ask = ask
        self._answers: dict[tuple[str, int], tuple[float, Waiting]] = {}
        self._deaf_until = 0.0

    def of(self, run: Run, snap: Snapshot) -> Waiting:
        """What is known of the launch's waiting tasks."""
        if not self._ask or all(view.end is not None or view.alive for view in snap.tasks):
            return UNKNOWN
        record = snap.record
        jobs = request.read(run, record.number)
        if record.cluster == "process" or (jobs is not None and jobs.cluster == "local"):
            return _here(jobs, record, snap)
        key = (run.id, record.number)
        asked, answer = self._answers.get(key, (0.0, UNKNOWN))
        if clock.now() - asked > _ASK_AGAIN_S and clock.now() >= self._deaf_until:
            heard = _at_slurm(jobs, record)
            if heard is None:  # a table of many runs must not wait for a silent controller once a run
                self._deaf_until = clock.now() + _ASK_AGAIN_S
            answer = heard or UNKNOWN
            self._answers[key] = (clock.now(), answer)
        return answer


def _at_slurm(jobs: Optional[request.Jobs], record: LaunchRecord) -> Optional[Waiting]:
    """Tasks on Slurm wait as long as squeue knows their jobs. None where squeue did not answer."""
    every = jobs.jobs if jobs else []
    arrays = {job.job_id: job.first_task for job in every if job.kind in (request.ARRAY, request.JOB)}
    if record.job is not None:
        arrays[record.job] = 0
    sweeps = {job.job_id for job in every if job.kind == request.SWEEP}
    if not arrays and (jobs is None or jobs.state != request.SUBMITTED):
        if jobs is not None and jobs.state == request.FAILED:
            return Waiting(True, {}, ["Slurm refused this launch: nothing of it is in the queue."])
        if clock.iso(clock.now() - _SUBMITTED_S) > record.created:
            return Waiting(True, {}, ["This launch was never submitted: its launcher died."])
    if not arrays or shutil.which("squeue") is None:
        return UNKNOWN
    try:
        ids = ",".join([*arrays, *sweeps])
        text = cluster.call("squeue", "--noheader", "--all", _FORMAT, f"--jobs={ids}", timeout_s=_TIMEOUT_S)
    except ClusterNotFit as error:
        gone = isinstance(error, cluster.CommandError) and "invalid job id" in error.said.lower()
        return Waiting(True, {}, []) if gone else None
    queued = [cluster.Queued(*line.split("|", 4)) for line in text.splitlines() if line.count("|") >= 4]
    if jobs is not None:  # ids come again in time, names do not
        queued = [job for job in queued if job.name.startswith(jobs.name)]
    tasks = [job for job in queued if job.job_id in arrays]
    found = {arrays[job.job_id] + index: job.state for job in tasks for index in expanded(job.tasks)}
    return Waiting(True, found, states.explain(tasks), any(job.job_id in sweeps for job in queued))


def _here(jobs: Optional[request.Jobs], record: LaunchRecord, snap: Snapshot) -> Waiting:
    """Tasks on this machine wait for the process that starts them one after the other, as long as it lives."""
    waiting = pump = False
    if jobs is not None:
        if jobs.host != provenance.host():
            return Waiting(False, {}, [f"It runs on {jobs.host}: only there can be told what becomes of it."])
        waiting = pump = any(active.is_pump(job.job_id) for job in jobs.jobs if job.kind == request.PUMP)
    else:
        waiting = any(view.alive for view in snap.tasks)
    begun = any(view.beat is not None for view in snap.tasks)
    fresh = not begun and clock.iso(clock.now() - _FRESH_S) <= record.created
    to_come = {view.task: "" for view in snap.tasks if view.beat is None} if waiting or fresh else {}
    return Waiting(True, to_come, [], pump)


def expanded(indexes: str) -> list[int]:
    """The task numbers of `3`, `0-15%4`, `1,3,5-7`; of `N/A` (a job that is no array): 0."""
    found: list[int] = []
    for part in indexes.strip().partition("%")[0].split(","):
        low, _, high = part.partition("-")
        if low.isdigit():
            found += range(int(low), min(int(high) if high.isdigit() else int(low), int(low) + _MOST) + 1)
    return found or [0]
