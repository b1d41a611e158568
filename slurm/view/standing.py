"""How a run stands at one moment, from its files; the scheduler is asked about tasks without a sign of life only."""

from __future__ import annotations

from typing import NamedTuple, Optional

from pipelines.core import clock, merge, progress
from pipelines.core.launches import LaunchRecord
from pipelines.core.merge import Receipt
from pipelines.core.progress import Snapshot
from pipelines.core.run import Run
from slurm import request, sweep
from slurm.view import attempts
from slurm.view.failures import Failures, Reader
from slurm.view.headers import Headers
from slurm.view.queue import Queue
from slurm.view.tasks import TaskStanding, standings

_LAUNCHES = 4
"""Among so many launches, those at work are looked for: each costs two small files a task."""


_OVER = {"silent", "died", "failed", "stopped"}
"""States of tasks whose launch has begun: what is pending beside them may be for ever."""


class Standing(NamedTuple):
    """A run. `exact`: the counts are those of a merge; else they are sums over what tasks have published and said.

    `speed`: × real time, of all tasks at work, or of the whole run where none is. `wall_s`: seconds of work, pauses
    between launches left out. `verdict`: what the sweep of the last launch said. `sweep`:
    whether it is still to come. `notes`: what keeps jobs waiting, and what the merge had to say.
    """

    run: Run
    time: float
    state: str
    receipt: Optional[Receipt]
    records: list[LaunchRecord]
    tasks: list[TaskStanding]
    failures: Failures
    items: int
    done: int
    quarantined: int
    exact: bool
    audio_seconds: float
    audio_seconds_expected: Optional[float]
    speed: Optional[float]
    eta_s: Optional[float]
    wall_s: float
    last_sign: Optional[float]
    verdict: Optional[sweep.Verdict]
    sweep: bool
    notes: list[str]
    damaged: list[str]

    @property
    def left(self) -> int:
        """Items neither done nor given up."""
        return max(0, self.items - self.done - self.quarantined)


class Looker:
    """Looks at runs; remembers what never changes, so that looking again is cheap."""

    def __init__(self, ask_queue: bool = True) -> None:
        self._headers, self._reader, self._queue = Headers(), Reader(), Queue(ask_queue)

    def look(self, run: Run) -> Standing:
        """How the run stands now."""
        records, receipt = run.records(), merge.last_receipt(run)
        files = self._headers.of(run)
        failures = self._reader.collect(run, files)
        if not is_current(receipt, records, len(files)):
            receipt = None
        snaps = _relevant(run, records)
        waiting = [self._queue.of(run, snap) for snap in snaps]
        tasks = [task for snap, known in zip(snaps, waiting) for task in standings(snap, files, known)]
        found = attempts.attempts(files, snaps)
        counts = _counts(receipt, records, found, failures, snaps)
        audio = sum(attempt.audio_seconds for attempt in found)
        alive = [task for task in tasks if task.alive]
        sweep_to_come = any(known.sweep for known in waiting)
        state = _state(run, records, receipt, counts, tasks)
        if sweep_to_come and state in ("incomplete", "stalled"):
            state = "queued"
        return Standing(
            run=run,
            time=clock.now(),
            state=state,
            sweep=sweep_to_come,
            receipt=receipt,
            records=records,
            tasks=tasks,
            failures=failures,
            items=counts.items,
            done=counts.done,
            quarantined=counts.quarantined,
            exact=receipt is not None,
            audio_seconds=once(audio, receipt),
            audio_seconds_expected=_expected(records, counts, audio),
            speed=_speed(alive, found, audio),
            eta_s=max((eta for snap in snaps if (eta := snap.eta_s)), default=None) if alive else None,
            wall_s=attempts.busy_s(found),
            last_sign=max((attempt.end for attempt in found), default=None),
            verdict=sweep.read(run, records[-1].number) if records else None,
            notes=[note for known in waiting for note in known.notes] + (receipt.notes if receipt else []),
            damaged=list(self._headers.damaged.values()),
        )


def once(audio_seconds: float, receipt: Optional[Receipt]) -> float:
    """Seconds of audio of a merged run, where parts hold items that were redone, too: never more than there is."""
    known = receipt.manifest.audio_seconds if receipt is not None else None
    return audio_seconds if known is None else min(audio_seconds, known)


def is_current(receipt: Optional[Receipt], records: list[LaunchRecord], parts: int) -> bool:
    """Whether the last merge is complete and holds all that was launched and published."""
    if receipt is None or receipt.missing or receipt.parts != parts:
        return False
    last = next((record for record in reversed(records) if record.items), None)
    if last is not None and receipt.launch is not None:
        return receipt.launch >= last.number
    if last is None or receipt.time > last.created:  # of fewer items, maybe: for those that went, nothing is launched
        return True
    return receipt.manifest.order == last.manifest.order and receipt.time == last.created


def _relevant(run: Run, records: list[LaunchRecord]) -> list[Snapshot]:
    """The last launch that dealt items, and earlier ones that are still at work; ascending."""
    chosen: list[Snapshot] = []
    with_items = [record for record in records if record.items] or records[-1:]
    for record in with_items[-_LAUNCHES:][::-1]:
        snap = progress.snapshot(run, record.number)
        if not chosen or any(view.alive for view in snap.tasks):
            chosen.append(snap)
    return chosen[::-1]


class _Counts(NamedTuple):
    items: int
    done: int
    quarantined: int

    @property
    def left(self) -> int:
        return self.items - self.done - self.quarantined


def _counts(
    receipt: Optional[Receipt],
    records: list[LaunchRecord],
    found: list[attempts.Attempt],
    failures: Failures,
    snaps: list[Snapshot],
) -> _Counts:
    if receipt is not None:
        return _Counts(receipt.items, receipt.merged, receipt.quarantined)
    if not records:
        return _Counts(0, 0, 0)
    last, items = records[-1], records[-1].manifest.items
    quarantined = failures.quarantined
    if not failures.complete:  # there are too many to look at: as many as tasks have told at their end, at least
        ends = [view.end.quarantined for snap in snaps for view in snap.tasks if view.end and _is_of(snap, last)]
        quarantined = max(quarantined, (last.quarantined_before or 0) + sum(ends))
    quarantined = min(items, quarantined)
    # The manifest may have lost items that earlier launches did.
    since = [attempt.done for attempt in found if last.done_before is None or attempt.launch >= last.number]
    return _Counts(items, min(items - quarantined, (last.done_before or 0) + sum(since)), quarantined)


def _is_of(snap: Snapshot, record: LaunchRecord) -> bool:
    return snap.record.number == record.number


def _expected(records: list[LaunchRecord], counts: _Counts, audio: float) -> Optional[float]:
    """Seconds of audio of the whole manifest: known, or from the mean of what is done."""
    known = records[-1].manifest.audio_seconds if records else None
    if known:
        return known
    return audio / counts.done * counts.items if counts.done else None


def _speed(alive: list[TaskStanding], found: list[attempts.Attempt], audio: float) -> Optional[float]:
    if alive:
        return sum(task.speed or 0.0 for task in alive) or None
    wall = attempts.busy_s(found)
    return audio / wall if wall > 0 and audio else None


def _state(
    run: Run, records: list[LaunchRecord], receipt: Optional[Receipt], counts: _Counts, tasks: list[TaskStanding]
) -> str:
    states = {task.state for task in tasks}
    answers = (
        ("planned", not records),
        ("running", any(task.alive for task in tasks)),
        ("merged", receipt is not None),
        ("finished", counts.left <= 0),
        ("cancelled", bool(records) and request.is_cancelled(run, records[-1].number)),
        ("queued", "queued" in states or ("pending" in states and not states & _OVER)),
        ("stalled", any(task.state == "silent" and task.note is None for task in tasks)),
        ("running", "silent" in states),  # Slurm says so: a clock that is behind, or a node that is busy
    )
    return next((state for state, holds in answers if holds), "incomplete")
