"""The attempts at a run's tasks: who worked when, and how far; from part headers, heartbeats and end receipts."""

from __future__ import annotations

from typing import Iterable, NamedTuple

from pipelines.core.progress import Snapshot, TaskView
from slurm.view.headers import PartFile

CUT_SHORT = "cut short"
"""State of an attempt that another one followed: killed, preempted, or stopped at the time limit."""


class Attempt(NamedTuple):
    """One process's work on one task. Times in seconds since the epoch; `state`: a task's state, or CUT_SHORT."""

    launch: int
    task: int
    name: str
    host: str
    start: float
    end: float
    done: int
    failed: int
    audio_seconds: float
    cpu_s: float
    state: str

    @property
    def wall_s(self) -> float:
        """Seconds from its start to its last sign."""
        return max(0.0, self.end - self.start)


Key = tuple[int, int, str]


def attempts(files: Iterable[PartFile], snapshots: Iterable[Snapshot]) -> list[Attempt]:
    """All attempts that left a sign, by launch, task and start."""
    found: dict[Key, Attempt] = {}
    for _, header in files:
        key = (header.launch, header.task, header.attempt)
        known = found.get(key)
        if known is None:
            known = Attempt(
                *key, header.host, header.started, header.published, 0, 0, 0.0, 0.0, CUT_SHORT
            )  # fmt: skip
        found[key] = known._replace(
            start=min(known.start, header.started),
            end=max(known.end, header.published),
            done=known.done + header.rows - header.failed,
            failed=known.failed + header.failed,
            audio_seconds=known.audio_seconds + header.audio_seconds,
        )
    for snap in snapshots:
        for view in snap.tasks:
            _add_signs(found, snap.record.number, view)
    return sorted(found.values(), key=lambda attempt: (attempt.launch, attempt.task, attempt.start))


def _add_signs(found: dict[Key, Attempt], launch: int, view: TaskView) -> None:
    """What the last heartbeat and the end receipt add: true start and end, state, what is not published yet.

    What a dead attempt had not published counts for nothing: another one publishes it, or does it again.
    """
    beat, end = view.beat, view.end
    if beat is not None:
        key = (launch, view.task, beat.attempt)
        known = found.get(key) or Attempt(*key, beat.host, beat.started, beat.time, 0, 0, 0.0, 0.0, view.state)
        found[key] = known._replace(
            start=min(known.start, beat.started),
            end=max(known.end, beat.time),
            done=max(known.done, beat.done if view.alive else 0),
            failed=max(known.failed, beat.failed),
            audio_seconds=max(known.audio_seconds, beat.audio_seconds if view.alive else 0.0),
            cpu_s=beat.cpu_s,
            state=view.state if end is None or end.attempt == beat.attempt else CUT_SHORT,
        )
    if end is not None:
        key = (launch, view.task, end.attempt)
        known = found.get(key) or Attempt(*key, end.host, end.started, end.ended, 0, 0, 0.0, 0.0, "finished")
        found[key] = known._replace(
            start=min(known.start, end.started), end=max(known.end, end.ended), cpu_s=end.cpu_s, state="finished"
        )


PAUSE_S = 120.0
"""A run at which nobody works for so long pauses; shorter gaps (jobs that start, models that load) belong to it."""


def busy_intervals(found: Iterable[Attempt]) -> list[tuple[float, float]]:
    """The spans of time between pauses, ascending and disjoint."""
    spans: list[tuple[float, float]] = []
    for start, end in sorted((attempt.start, attempt.end) for attempt in found):
        if spans and start <= spans[-1][1] + PAUSE_S:
            spans[-1] = (spans[-1][0], max(spans[-1][1], end))
        else:
            spans.append((start, end))
    return spans


def busy_s(found: Iterable[Attempt]) -> float:
    """The run's wall time without the pauses between launches, in seconds."""
    return sum(end - start for start, end in busy_intervals(found))
