"""What runs cost, and what of it went into nothing: from sacct where it answers, else from the run's own files.

The files are enough for tasks that the launcher started, on any machine; they know no memory, and of an attempt that
was killed only what it published. sacct knows what was held, to the second, and, where the cluster counts them,
processor time and memory.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Iterable, Iterator, NamedTuple, Optional, Sequence

from pipelines.core import merge, paths, progress
from pipelines.core.errors import VoxarrayError
from pipelines.core.progress import Snapshot
from pipelines.core.run import Run
from slurm import request
from slurm.view import account_sacct, account_work, standing
from slurm.view.account_cost import Cost, cost
from slurm.view.account_sacct import Answer, Stretch
from slurm.view.account_work import Work
from slurm.view.headers import Headers

_CLOCKS_S = 5.0
"""An attempt belongs to a job that began at most so much after it: clocks differ."""
_REAL = re.compile(r"([\d,]+) (?:pieces|tokens)\b.*?([\d.]+) % of the (?:audio|tokens) that (?:was|were) computed")
"""What pipelines say of padding in their logs: of so many pieces, so much was real."""
_TAIL = 1 << 15
_CPUS = re.compile(r"--cpus(?:=|\s+)(\d+)")


class Waste(NamedTuple):
    """Time of tasks that came to no result, in seconds. None: unknown.

    `loading_s`: until the first item was begun, estimated from the parts of `loading_of` attempts for all; `around_s`:
    jobs held before, between and after the attempts (sacct); `lost_s`: after the last part of the `cut_short` attempts
    that did not come to their end. `padding`: share of what was computed for nothing; `tries`: of items that failed;
    `spare`: rows that the merge had no use for (items done twice, tries before the one that succeeded).
    """

    loading_s: Optional[float] = None
    loading_of: int = 0
    around_s: Optional[float] = None
    lost_s: float = 0.0
    cut_short: int = 0
    padding: Optional[float] = None
    tries: int = 0
    spare: Optional[int] = None


class Sources(NamedTuple):
    """Where the figures are from: of how many tasks sacct told, of how many the files; `silence`: why not it.

    `used`: where the processor time is from: `sacct`, `heartbeats`, `both` or None.
    """

    sacct: int
    files: int
    silence: Optional[str]
    used: Optional[str]


class Account(NamedTuple):
    """What a run cost. `items`: done. `states`: how its jobs ended (sacct), with counts; `held`: what was held."""

    run: str
    pipeline: str
    items: int
    audio_seconds: float
    launches: int
    tasks: int
    attempts: int
    cost: Cost
    waste: Waste
    sources: Sources
    states: dict[str, int]
    at_work: bool
    held: list[Stretch]


class _Attempts:
    """The attempts of a run, by task."""

    def __init__(self, works: Sequence[Work]) -> None:
        self.all = works
        self._by_task: dict[tuple[int, Optional[int]], list[Work]] = {}
        for work in works:
            self._by_task.setdefault((work.launch, work.task), []).append(work)

    def within(self, stretch: Stretch) -> list[Work]:
        """Those that began in a stretch, by their start."""
        end = (stretch.start + stretch.elapsed_s if stretch.end is None else stretch.end) + _CLOCKS_S
        mine = self._by_task.get((stretch.launch, stretch.task), [])
        return [work for work in mine if work.start is not None and stretch.start - _CLOCKS_S <= work.start <= end]


def account(run: Run) -> Account:
    """The account of a run as it stands."""
    records = run.records()
    snaps = [progress.snapshot(run, record.number) for record in records]
    files = Headers().of(run)
    attempts = _Attempts(account_work.works(files, snaps))
    answer = account_sacct.ask(run, snaps)
    held = [*(_with_use(stretch, attempts) for stretch in answer.stretches)]
    held += _of_files(run, snaps, answer, attempts)
    receipt = merge.last_receipt(run)
    if not standing.is_current(receipt, records, len(files)):
        receipt = None
    loading_s, loading_of = _loading(attempts.all)
    lost_s, cut_short = _lost(run, answer, attempts)
    return Account(
        run=run.id,
        pipeline=run.plan.pipeline,
        items=receipt.merged if receipt else sum(work.done for work in attempts.all),
        audio_seconds=standing.once(sum(work.audio_seconds for work in attempts.all), receipt),
        launches=len(records),
        tasks=len({(stretch.launch, stretch.task) for stretch in held if stretch.task is not None}),
        attempts=len(attempts.all),
        cost=cost(held),
        waste=Waste(
            loading_s=loading_s,
            loading_of=loading_of,
            around_s=_around(answer, attempts),
            lost_s=lost_s,
            cut_short=cut_short,
            padding=_padding(run, snaps),
            tries=sum(work.failed for work in attempts.all),
            spare=receipt.spare if receipt else None,
        ),
        sources=_sources(held, answer),
        states=dict(Counter(stretch.state for stretch in answer.stretches if stretch.task is not None)),
        at_work=any(view.alive for snap in snaps for view in snap.tasks),
        held=held,
    )


def _with_use(stretch: Stretch, attempts: _Attempts) -> Stretch:
    """Processor time from heartbeats where sacct has none: clusters may count no jobs' processes."""
    if stretch.cpu_s is not None or stretch.task is None:
        return stretch
    known = [work.cpu_s for work in attempts.within(stretch)]
    if not known or None in known:  # an attempt's heartbeat is gone: what it used is not known
        return stretch
    return stretch._replace(cpu_s=sum(value or 0.0 for value in known), used_by_sacct=False)


def _of_files(run: Run, snaps: Iterable[Snapshot], answer: Answer, attempts: _Attempts) -> Iterator[Stretch]:
    """The attempts at tasks that sacct does not know, as stretches; what they held is what was asked for."""
    told = {(stretch.launch, stretch.task) for stretch in answer.stretches}
    asked = {snap.record.number: _asked(run, snap) for snap in snaps}
    for work in attempts.all:
        if (work.launch, work.task) not in told:
            yield asked[work.launch]._replace(
                task=work.task, start=work.start or 0.0, end=work.end, elapsed_s=work.wall_s, cpu_s=work.cpu_s
            )


def _asked(run: Run, snap: Snapshot) -> Stretch:
    """A stretch of no time that holds what the tasks of a launch asked for, as far as that is on record."""
    jobs, record = request.read(run, snap.record.number), snap.record
    stretch = Stretch(record.number, None, "", 0.0, None, 0.0, used_by_sacct=False)
    if jobs is None:
        given = _CPUS.search(" ".join(record.argv))
        here = record.cluster not in ("slurm", account_sacct.PLAIN) and not account_sacct.within_jobs(snap)
        return stretch._replace(cpus=int(given[1]) if given else 1) if here else stretch
    wanted = jobs.request
    stretch = stretch._replace(cpus=wanted.cpus, gpus=wanted.gpu_count)
    if jobs.cluster != "slurm":  # this machine holds nobody to memory and time
        return stretch
    return stretch._replace(mem_mb=float(wanted.mem_mb), limit_s=wanted.time * 60.0)


def _loading(works: Sequence[Work]) -> tuple[Optional[float], int]:
    """Seconds that all attempts spent on it, and of how many that is known; the others are given the mean."""
    known = [work.loading_s for work in works if work.loading_s is not None]
    if not known:
        return None, 0
    mean = sum(known) / len(known)
    each = (min(work.wall_s, mean if work.loading_s is None else work.loading_s) for work in works)
    return sum(each), len(known)


def _around(answer: Answer, attempts: _Attempts) -> Optional[float]:
    """Seconds in which jobs were held and no attempt lived. None without sacct."""
    ended = [stretch for stretch in answer.stretches if stretch.task is not None and stretch.end is not None]
    if not ended:
        return None
    return sum(
        max(0.0, stretch.elapsed_s - sum(end - start for start, end in _lives(stretch, attempts))) for stretch in ended
    )


def _lives(stretch: Stretch, attempts: _Attempts) -> Iterator[tuple[float, float]]:
    """From when to when the attempts of a stretch lived; one that died, until the next began or the job ended."""
    works = attempts.within(stretch)
    for place, work in enumerate(works):
        start, end = work.start or stretch.start, work.end or work.start or stretch.start
        if work.over and not work.rescued:
            following = works[place + 1].start if place + 1 < len(works) else stretch.end
            end = max(end, following or end)
        yield start, end


def _lost(run: Run, answer: Answer, attempts: _Attempts) -> tuple[float, int]:
    """Seconds after the last parts of attempts that were cut short, and how many these are."""
    over = [work for work in attempts.all if work.over]
    if not over or _goes_on(run):  # from a state of its own, so that little is lost
        return 0.0, len(over)
    ends = {
        work: end
        for stretch in answer.stretches
        for work, (_, end) in zip(attempts.within(stretch), _lives(stretch, attempts))
    }
    return sum(work.lost_s(ends.get(work)) for work in over), len(over)


def _goes_on(run: Run) -> bool:
    try:
        return run.pipeline.resumes
    except VoxarrayError:  # a pipeline that is not here (any more)
        return False


def _padding(run: Run, snaps: Iterable[Snapshot]) -> Optional[float]:
    """The share of padding that tasks told in their logs at their end, weighted by what they did."""
    whole = empty = 0.0
    for snap in snaps:
        for view in snap.tasks:
            for pieces, real in _told(run, snap.record.number, view.task):
                whole, empty = whole + pieces, empty + pieces * (1 - real)
    return empty / whole if whole else None


def _told(run: Run, launch: int, task: int) -> Iterator[tuple[float, float]]:
    """Pieces, and the share of real ones in what was computed, of each attempt that told them in the task's log."""
    try:
        with paths.task_log(run.id, launch, task).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return
    for match in _REAL.finditer(text):
        yield float(match[1].replace(",", "")), float(match[2]) / 100


def _sources(held: Iterable[Stretch], answer: Answer) -> Sources:
    tasks = [stretch for stretch in held if stretch.task is not None]
    told = {(stretch.launch, stretch.task) for stretch in answer.stretches if stretch.task is not None}
    every = {(stretch.launch, stretch.task) for stretch in tasks}
    kinds = {"sacct" if stretch.used_by_sacct else "heartbeats" for stretch in tasks if stretch.cpu_s is not None}
    used = "both" if len(kinds) > 1 else next(iter(kinds), None)
    return Sources(len(told), len(every - told), answer.silence, used)
