"""The attempts at a run's tasks as its own files tell of them: how long, and how much of it was loading, or lost.

An attempt is one worker process. Its parts tell when it began and when it published; its last heartbeat, which the
next attempt at the task overwrites, tells how much processor time it used and when it was last heard of.
"""

from __future__ import annotations

from itertools import groupby
from typing import Iterable, NamedTuple, Optional, Sequence

from pipelines.core.heartbeat import Heartbeat
from pipelines.core.parts import Header
from pipelines.core.progress import LIVE, Snapshot
from slurm.view.headers import PartFile

_ADOPTED_GAP_S = 30.0
"""An attempt publishes without pause: the next part begins as the last is published. A part that begins later was made
of a dead attempt's journal by whoever came after it, and says nothing of how long the attempt lived."""
_ADOPTED_S = 0.25
"""Making such a part takes less than this; to start a pipeline and settle an item takes longer."""


class Work(NamedTuple):
    """One attempt. Times in seconds since the epoch, None where no file tells them; amounts of audio in seconds.

    `published`: when it last published; `cpu_s`: its processor time; `loading_s`: its first part's time less what
    its items took, judging by the later parts; `rescued`: what it had finished but not published was published by
    another; `over`: it ended with items left (killed, preempted, out of time).
    """

    launch: int
    task: int
    start: Optional[float]
    end: Optional[float]
    published: Optional[float]
    done: int
    failed: int
    audio_seconds: float
    cpu_s: Optional[float]
    loading_s: Optional[float]
    rescued: bool
    over: bool

    @property
    def wall_s(self) -> float:
        """How long it is known to have lived."""
        return max(0.0, self.end - self.start) if self.start is not None and self.end is not None else 0.0

    def lost_s(self, until: Optional[float] = None) -> float:
        """Of an attempt that is over: seconds between its last part and its end (`until`, where that is known)."""
        if not self.over or self.rescued or self.start is None or self.end is None:
            return 0.0
        return max(0.0, max(self.end, until or 0.0) - (self.published or self.start))


_Key = tuple[int, int, str]


def works(files: Iterable[PartFile], snapshots: Iterable[Snapshot]) -> list[Work]:
    """All attempts that left a sign, by launch, task and start."""
    ordered = sorted((header for _, header in files), key=lambda header: (*_key(header), header.sequence))
    headers = {key: list(group) for key, group in groupby(ordered, _key)}
    beats, ends = _signs(snapshots)
    found = []
    for key in sorted({*headers, *beats, *ends}):
        work = _work(key, headers.get(key, []), beats.get(key), ends.get(key))
        # A strike for an item that killed its worker is published by the supervisor, which is no attempt.
        if work.start is not None or work.done:
            found.append(work)
    return sorted(found, key=lambda work: (work.launch, work.task, work.start or 0.0))


def _key(header: Header) -> _Key:
    return header.launch, header.task, header.attempt


class _Sign(NamedTuple):
    """What a heartbeat or an end receipt says."""

    start: float
    end: float
    cpu_s: float
    over: bool


def _signs(snapshots: Iterable[Snapshot]) -> tuple[dict[_Key, _Sign], dict[_Key, _Sign]]:
    """The signs of attempts in heartbeats, and in end receipts."""
    beats: dict[_Key, _Sign] = {}
    ends: dict[_Key, _Sign] = {}
    for snap in snapshots:
        for view in snap.tasks:
            beat, end = view.beat, view.end
            if end is not None:
                key = (snap.record.number, view.task, end.attempt)
                ends[key] = _Sign(end.started, end.ended, end.cpu_s, over=False)
            if beat is not None:
                key = (snap.record.number, view.task, beat.attempt)
                other = end is not None and end.attempt != beat.attempt
                beats[key] = _Sign(beat.started, beat.time, beat.cpu_s, _is_over(beat, view.state, other))
    return beats, ends


def _is_over(beat: Heartbeat, state: str, other: bool) -> bool:
    return beat.state != "finished" and (other or state not in (*LIVE, "finished"))


def _work(key: _Key, headers: Sequence[Header], beat: Optional[_Sign], end: Optional[_Sign]) -> Work:
    own, adopted = _divided(headers, beat or end)
    signs = [sign for sign in (beat, end) if sign is not None]
    starts = [own[0].started] if own else []
    times = [header.published for header in own]
    last = end or beat
    return Work(
        launch=key[0],
        task=key[1],
        start=min([*starts, *(sign.start for sign in signs)], default=None),
        end=max([*times, *(sign.end for sign in signs)], default=None),
        published=max(times, default=None),
        done=sum(header.rows - header.failed for header in headers),
        failed=sum(header.failed for header in headers),
        audio_seconds=sum(header.audio_seconds for header in headers),
        cpu_s=last.cpu_s if last is not None else None,
        loading_s=_loading(own),
        rescued=bool(adopted),
        over=last.over if last is not None else True,
    )


def _divided(headers: Sequence[Header], sign: Optional[_Sign]) -> tuple[list[Header], list[Header]]:
    """The parts that the attempt published itself, and those that others made of what it left."""
    own: list[Header] = []
    for place, header in enumerate(headers):
        quick = header.published - header.started < _ADOPTED_S
        after = header.started - own[-1].published > _ADOPTED_GAP_S if own else quick
        if sign is not None:
            after = header.started > sign.end
        if quick and after:
            return own, list(headers[place:])
        own.append(header)
    return own, []


def _loading(own: Sequence[Header]) -> Optional[float]:
    """Seconds until the first item was begun, from the speed of the later parts; None where there are none."""
    if len(own) < 2:
        return None
    by_audio = all(header.audio_seconds > 0 for header in own)
    amounts = [header.audio_seconds if by_audio else float(header.rows) for header in own]
    later, took = sum(amounts[1:]), own[-1].published - own[0].published
    first = own[0].published - own[0].started
    return min(first, max(0.0, first - amounts[0] * took / later)) if later > 0 and took > 0 else None
