"""How far a launch is, from its tasks' heartbeats and end receipts: for live progress, `status` and the report."""

from __future__ import annotations

import sys
import threading
from typing import IO, NamedTuple, Optional

from pipelines.core import clock, heartbeat
from pipelines.core.heartbeat import End, Heartbeat
from pipelines.core.launches import LaunchRecord
from pipelines.core.run import Run

_QUIET_EVERY_S = 60.0

LIVE = ("starting", "waiting", "loading", "running", "retrying")
"""States in which a task says something every interval; when it does not, it is silent."""


class TaskView(NamedTuple):
    """One task: its share, its last heartbeat and its end receipt (None where there is none yet)."""

    task: int
    dealt: int
    audio_seconds_dealt: float
    beat: Optional[Heartbeat]
    end: Optional[End]

    @property
    def settled(self) -> int:
        """Items done or given up so far (all of them once the task has ended)."""
        if self.end is not None:
            return self.end.dealt
        return self.beat.settled if self.beat else 0

    @property
    def audio_seconds(self) -> float:
        """Seconds of audio done so far, by all attempts."""
        if self.end is not None:
            return self.end.audio_seconds
        return self.beat.audio_seconds_before + self.beat.audio_seconds if self.beat else 0.0

    @property
    def state(self) -> str:
        """The heartbeat's state; `pending` before the first; `silent` where a live state went stale."""
        if self.end is not None:
            return "finished"
        if self.beat is None:
            return "pending"
        if self.beat.state in LIVE and clock.now() - self.beat.time > heartbeat.STALE_AFTER * self.beat.interval_s + 2:
            return "silent"
        return self.beat.state

    @property
    def alive(self) -> bool:
        """Whether the task is at work, as far as its heartbeat says."""
        return self.state in LIVE

    @property
    def rate(self) -> Optional[float]:
        """Seconds of audio a second of wall time in the present (or last) attempt: × real time."""
        if self.beat is None:
            return None
        wall = self.beat.time - self.beat.started
        return self.beat.audio_seconds / wall if wall > 0 else None

    def left_s(self, mean_item_s: float) -> float:
        """Seconds of audio left; from the mean item, where durations were not known beforehand."""
        if self.end is not None:
            return 0.0
        if self.audio_seconds_dealt > 0:
            given_up = self.beat.audio_seconds_given_up if self.beat else 0.0
            return max(0.0, self.audio_seconds_dealt - self.audio_seconds - given_up)
        return max(0, self.dealt - self.settled) * mean_item_s

    def eta_s(self, mean_item_s: float) -> Optional[float]:
        """Seconds until the task is through at its own speed; None where that is unknown or it is not at work."""
        if self.end is not None:
            return 0.0
        return self.left_s(mean_item_s) / self.rate if self.alive and self.rate else None


class Snapshot(NamedTuple):
    """A launch at one moment."""

    record: LaunchRecord
    tasks: list[TaskView]
    time: float

    @property
    def items(self) -> int:
        """Items dealt."""
        return sum(view.dealt for view in self.tasks)

    @property
    def settled(self) -> int:
        """Items done or given up so far."""
        return sum(view.settled for view in self.tasks)

    @property
    def failed(self) -> int:
        """Failed tries in the present attempts."""
        return sum(view.beat.failed for view in self.tasks if view.beat)

    @property
    def audio_seconds(self) -> float:
        """Seconds of audio done."""
        return sum(view.audio_seconds for view in self.tasks)

    @property
    def audio_seconds_dealt(self) -> float:
        """Seconds of audio dealt; where durations were not known beforehand, as estimated from what is done."""
        if all(view.audio_seconds_dealt > 0 for view in self.tasks if view.dealt):
            return sum(view.audio_seconds_dealt for view in self.tasks)
        return self.mean_item_s * self.items

    @property
    def speed(self) -> float:
        """× real time of all tasks that are at work, together."""
        return sum(view.rate or 0.0 for view in self.tasks if view.alive)

    @property
    def eta_s(self) -> Optional[float]:
        """Seconds until all is through; None while that is unknown.

        The slowest task at work decides, or, while tasks wait for their turn, all that is left at the present speed.
        """
        mean, speed = self.mean_item_s, self.speed
        lefts = [view.left_s(mean) for view in self.tasks]
        etas = [eta for view in self.tasks if (eta := view.eta_s(mean)) is not None]
        waiting = any(view.dealt and not view.alive and view.end is None for view in self.tasks)
        if waiting and speed:
            etas.append(sum(lefts) / speed)
        return max(etas, default=None)

    @property
    def mean_item_s(self) -> float:
        """Mean seconds of audio of the items that the present attempts have done; 0 before the first."""
        beats = [view.beat for view in self.tasks if view.beat]
        done = sum(beat.done for beat in beats)
        return sum(beat.audio_seconds for beat in beats) / done if done else 0.0

    @property
    def finished(self) -> bool:
        """Whether every task with items has ended."""
        return all(view.end is not None or not view.dealt for view in self.tasks)


def snapshot(run: Run, launch: int) -> Snapshot:
    """The state of a launch now: two small files are read for each task.

    A plain array may hold some of the tasks only (`--array=5`); once all that were submitted have begun, the others
    are left out.
    """
    state, record = run.state_folder(launch), run.record(launch)
    views = [
        TaskView(task, share.items, share.audio_seconds, heartbeat.read(state, task), heartbeat.read_end(state, task))
        for task, share in enumerate(run.deal(launch).shares)
    ]
    begun = [view for view in views if view.beat is not None or view.end is not None]
    if record.submitted_tasks is not None and len(begun) >= record.submitted_tasks:
        views = begun
    return Snapshot(record, views, clock.now())


def line(view: Snapshot) -> str:
    """One line for people: items, hours of audio, × real time, time left, failures."""
    share = view.settled / view.items if view.items else 1.0
    parts = [f"{view.settled:,}/{view.items:,} items ({share:.0%})", f"{view.audio_seconds / 3600:.2f} h of audio"]
    if view.speed:
        parts.append(f"{view.speed:,.0f} × real time")
    if not view.finished and view.eta_s is not None:
        parts.append(f"about {clock.spoken(view.eta_s)} left")
    if view.failed:
        parts.append(f"{view.failed:,} failed tries")
    return ", ".join(parts)


class Live:
    """Shows a launch's progress until stopped: one line rewritten on a terminal, a line a minute elsewhere."""

    def __init__(self, run: Run, launch: int, stream: Optional[IO[str]] = None) -> None:
        self._run, self._launch = run, launch
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="progress", daemon=True)

    def __enter__(self) -> Live:  # noqa: PYI034 - `Self` is not in Python 3.9
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._terminal:
            self.show(last=True)

    def _loop(self) -> None:
        while not self._ended.wait(1.0 if self._terminal else _QUIET_EVERY_S):
            self.show()

    def show(self, last: bool = False) -> None:
        """Write the line."""
        text = line(snapshot(self._run, self._launch))
        if self._terminal:
            self._stream.write(f"\r\x1b[K{text}" + ("\n" if last else ""))
        else:
            self._stream.write(text + "\n")
        self._stream.flush()
