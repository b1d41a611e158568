"""How the tasks of a launch stand."""

from __future__ import annotations

import os
import statistics
from typing import NamedTuple, Optional

from pipelines.core import provenance
from pipelines.core.heartbeat import Heartbeat
from pipelines.core.progress import LIVE, Snapshot, TaskView
from slurm.view.headers import PartFile
from slurm.view.queue import Waiting

SLOW = 0.5
"""A task is slow below this share of the median × real time of its launch."""
_FEWEST = 3
"""So many tasks must have a speed before one of them is called slow."""
_SETTLING_S = 20.0
"""A task this young is not called slow: loading the model weighs too much."""


_ON_A_NODE = ("RUNNING", "CONFIGURING", "COMPLETING")


class TaskStanding(NamedTuple):
    """One task of one launch. Amounts of audio in seconds; `speed` is × real time; `age_s`: since its last sign.

    `state`: pending (no sign of life yet), queued (the scheduler says that it waits), absent (it says that nobody will
    begin it), idle (no items), died (its process is gone from this machine), or a heartbeat's state, or silent.
    """

    launch: int
    task: int
    state: str
    host: Optional[str]
    job: Optional[str]
    dealt: int
    settled: int
    failed: int
    audio_seconds: float
    audio_seconds_dealt: float
    speed: Optional[float]
    eta_s: Optional[float]
    age_s: Optional[float]
    restarts: int
    slow: bool
    note: Optional[str]

    @property
    def alive(self) -> bool:
        """Whether it is at work, as far as its heartbeat says."""
        return self.state in LIVE

    @property
    def unwell(self) -> bool:
        """Whether a person should look at it."""
        return self.slow or self.state in ("silent", "died", "failed", "stopped", "absent")


class _Published(NamedTuple):
    """What a task has published in a launch: items done, seconds of audio, and those of its last attempt."""

    done: int = 0
    audio_seconds: float = 0.0
    audio_of_last: float = 0.0


def standings(snap: Snapshot, files: list[PartFile], waiting: Waiting) -> list[TaskStanding]:
    """The tasks of a launch; those outside a plain array of some of them (`--array=5`) are left out, if known."""
    last = {view.task: view.beat.attempt for view in snap.tasks if view.beat}
    published: dict[int, _Published] = {}
    for _, header in files:
        if header.launch == snap.record.number:
            own = header.audio_seconds if last.get(header.task) == header.attempt else 0.0
            known = published.get(header.task, _Published())
            published[header.task] = _Published(
                known.done + header.rows - header.failed,
                known.audio_seconds + header.audio_seconds,
                known.audio_of_last + own,
            )
    mean = snap.mean_item_s
    tasks = [_standing(snap, view, published.get(view.task, _Published()), waiting, mean) for view in snap.tasks]
    if snap.record.submitted_tasks is not None and snap.record.submitted_tasks < snap.record.tasks and waiting.known:
        tasks = [task for task in tasks if task.state not in ("absent", "idle")]
    return _marked(tasks, snap)


def _standing(snap: Snapshot, view: TaskView, published: _Published, waiting: Waiting, mean: float) -> TaskStanding:
    beat, end = view.beat, view.end
    state, note = _state(view, waiting)
    audio = published.audio_seconds
    if beat is not None:
        audio += max(0.0, beat.audio_seconds - published.audio_of_last)
    age = snap.time - beat.time if beat else None
    return TaskStanding(
        launch=snap.record.number,
        task=view.task,
        state=state,
        host=end.host if end else beat.host if beat else None,
        job=beat.job if beat else None,
        dealt=view.dealt,
        settled=min(view.dealt, max(view.settled, published.done)),
        failed=end.quarantined if end else beat.failed if beat else 0,
        audio_seconds=max(audio, view.audio_seconds),
        audio_seconds_dealt=view.audio_seconds_dealt,
        speed=view.rate or None,
        eta_s=view.eta_s(mean) if end is None else None,
        age_s=snap.time - end.ended if end else age,
        restarts=beat.restarts if beat else 0,
        slow=False,
        note=note,
    )


def _state(view: TaskView, waiting: Waiting) -> tuple[str, Optional[str]]:
    """The state, and what there is to say of it."""
    state, seen = view.state, waiting.states.get(view.task)
    if view.end is not None or view.alive:
        return state, None
    if not view.dealt:
        return "idle", None
    if seen is None or (state == "silent" and seen in _ON_A_NODE):
        return _left_alone(view, waiting, seen)
    return "starting" if seen in _ON_A_NODE else "queued", None


def _left_alone(view: TaskView, waiting: Waiting, seen: Optional[str]) -> tuple[str, Optional[str]]:
    """The same for a task that the scheduler does not hold, or takes for running without a sign of it."""
    state, beat = view.state, view.beat
    if beat is None:
        return ("absent" if waiting.known else "pending"), None
    if state != "silent":
        return state, beat.reason or beat.signal
    if _is_gone(beat):
        return "died", None
    return state, "Slurm says that it runs" if seen else None


def _is_gone(beat: Heartbeat) -> bool:
    """Whether the process that sent the heartbeat ran on this machine and runs no more."""
    if beat.host != provenance.host():
        return False
    try:
        os.kill(beat.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _marked(tasks: list[TaskStanding], snap: Snapshot) -> list[TaskStanding]:
    """The tasks, with those marked slow that hold up the launch."""
    speeds = [task.speed for task in tasks if task.speed]
    if len(speeds) < _FEWEST:
        return tasks
    limit = SLOW * statistics.median(speeds)
    young = {
        view.task for view in snap.tasks if view.beat is not None and view.beat.time - view.beat.started < _SETTLING_S
    }
    return [
        task._replace(slow=True) if task.alive and task.task not in young and (task.speed or 0.0) < limit else task
        for task in tasks
    ]
