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


class TaskView(NamedTuple):
    """One task: its share, its last heartbeat and its end receipt (None where there is none yet)."""

    task: int
    dealt: int
    audio_seconds_dealt: float
    beat: Optional[Heartbeat]
    end: Optional[End]

    @property
    def settled(self) -> int:
        """Items done so far (all of them once the task has ended)."""
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
        live = self.beat.state in ("starting", "loading", "running", "retrying")
        if live and clock.now() - self.beat.time > heartbeat.STALE_AFTER * self.beat.interval_s + 2:
            return "silent"
        return self.beat.state

    @property
    def rate(self) -> Optional[float]:
        """Seconds of audio a second of wall time in the present (or last) attempt: × real time."""
        if self.beat is None:
            return None
        wall = self.beat.time - self.beat.started
        return self.beat.audio_seconds / wall if wall > 0 else None


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
        """Items done so far."""
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
        dealt = sum(view.audio_seconds_dealt for view in self.tasks)
        if dealt > 0:
            return dealt
        return self.audio_seconds / self.settled * self.items if self.settled else 0.0

    @property
    def speed(self) -> float:
        """× real time of all tasks that are at work, together."""
        return sum(view.rate or 0.0 for view in self.tasks if view.state in ("running", "retrying", "loading"))

    @property
    def eta_s(self) -> Optional[float]:
        """Seconds until the slowest task is through, from each task's own speed; None while that is unknown."""
        return max((eta for view in self.tasks if (eta := self._task_eta(view)) is not None), default=None)

    def _task_eta(self, view: TaskView) -> Optional[float]:
        if view.state == "finished":
            return 0.0
        if not view.rate:
            return None
        left = view.audio_seconds_dealt - view.audio_seconds
        if view.audio_seconds_dealt <= 0:
            mean = self.audio_seconds / self.settled if self.settled else 0.0
            left = (view.dealt - view.settled) * mean
        return max(0.0, left) / view.rate

    @property
    def finished(self) -> bool:
        """Whether every task with items has ended."""
        return all(view.end is not None or not view.dealt for view in self.tasks)


def snapshot(run: Run, launch: int) -> Snapshot:
    """The state of a launch now: two small files are read for each task."""
    state = run.state_folder(launch)
    views = [
        TaskView(task, share.items, share.audio_seconds, heartbeat.read(state, task), heartbeat.read_end(state, task))
        for task, share in enumerate(run.deal(launch).shares)
    ]
    return Snapshot(run.record(launch), views, clock.now())


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
