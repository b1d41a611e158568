"""What to ask for the next time, from what was asked for and what was used: the one or two things that matter most."""

from __future__ import annotations

import math
from typing import Iterator, NamedTuple

from slurm import resources
from slurm.view.account import Account
from slurm.view.words import amount, counted, figures, share

MOST = 2
_ENOUGH_S = 60.0
"""Tasks that worked for less in all tell of starting, and of nothing else."""
_ROOM = 1.25
"""What is advised is so much above what was used."""
_IDLE, _EMPTY, _EARLY, _SLOW_START, _LOST, _PADDED = 0.6, 0.5, 0.25, 0.2, 0.1, 0.3
"""Shares from which on it is worth a word: processors, memory and time used below; loading, losses, padding above."""
_LEAST_MB, _LEAST_SAVED_MB = 512.0, 1024.0
_LEAST_LIMIT_S = 3600.0


class _Word(NamedTuple):
    """A piece of advice; `weight`: the share of what was held that it is about, above 1 for what failed."""

    weight: float
    text: str


def advice(found: Account) -> list[str]:
    """At most MOST sentences, the weightiest first; none where nothing stands out."""
    if found.cost.time_s < _ENOUGH_S and not found.states.get("OUT_OF_MEMORY"):
        return []
    words = sorted((word for word in _words(found) if word), key=lambda word: -word.weight)
    return [word.text for word in words[:MOST]]


def _words(found: Account) -> Iterator[_Word]:
    yield from _ended(found)
    yield from _processors(found)
    yield from _memory(found)
    yield from _limit(found)
    yield from _time(found)


def _ended(found: Account) -> Iterator[_Word]:
    """What the scheduler ended."""
    killed, late = found.states.get("OUT_OF_MEMORY", 0), found.states.get("TIMEOUT", 0)
    if killed:
        more = f"--mem {math.ceil((found.cost.mem_mb or 1024) * 1.5 / 1024)}G" if found.cost.mem_mb else "more --mem"
        yield _Word(3, f"{counted(killed, 'job')} ran out of memory: {more}, or fewer --cpus that share it.")
    if late:
        limit = resources.clock(math.ceil((found.cost.limit_s or 3600) * 2 / 60))
        yield _Word(2, f"{counted(late, 'job')} met the time limit: --time {limit}, or more tasks (--tasks).")


def _processors(found: Account) -> Iterator[_Word]:
    """From sacct's figures alone: heartbeats do not know of child processes that are still at work."""
    cost, used = found.cost, found.cost.used_cpus
    if not cost.cpus or used is None or found.cost.used_share is None or found.sources.used != "sacct":
        return
    enough = max(1, math.ceil(used * _ROOM))
    if cost.cpus > enough and found.cost.used_share < _IDLE:
        text = f"Tasks used {figures(used, 2)} of {cost.cpus} processors: --cpus {enough} would do."
        yield _Word(1 - enough / cost.cpus, text)


def _memory(found: Account) -> Iterator[_Word]:
    cost = found.cost
    if not cost.mem_mb or not cost.rss_mb or cost.rss_mb > _EMPTY * cost.mem_mb:
        return
    enough = max(_LEAST_MB, cost.rss_mb * _ROOM)
    said = f"{math.ceil(enough / 1024)}G" if enough > _LEAST_MB else f"{_LEAST_MB:.0f}M"
    if cost.mem_mb - resources.megabytes(said) >= _LEAST_SAVED_MB:
        text = f"No task took more than {gigabytes(cost.rss_mb)} of {gigabytes(cost.mem_mb)}: --mem {said} would do."
        yield _Word(0.5 * (1 - enough / cost.mem_mb), text)  # others' jobs need the processors more often


def _limit(found: Account) -> Iterator[_Word]:
    cost = found.cost
    if not cost.limit_s or cost.limit_s < _LEAST_LIMIT_S or cost.longest_s > _EARLY * cost.limit_s or found.at_work:
        return
    enough = 60 * math.ceil(max(600.0, 2 * cost.longest_s) / 600) * 10
    if enough < cost.limit_s:
        text = f"The longest task took {amount(cost.longest_s)} of {amount(cost.limit_s)}: --time "
        yield _Word(0.3, f"{text}{resources.clock(enough // 60)} would do, and shorter jobs start sooner.")


def _time(found: Account) -> Iterator[_Word]:
    """What the tasks did with their time."""
    cost, waste = found.cost, found.waste
    if not cost.time_s:
        return
    loading = (waste.loading_s or 0.0) / cost.time_s
    if loading > _SLOW_START and found.tasks > 1:
        fewer = max(1, math.floor(found.tasks * (1 - loading) / loading * _SLOW_START / (1 - _SLOW_START)))
        text = f"Loading took {share(loading, 1)} of the tasks' time: fewer, longer tasks load less often"
        yield _Word(loading, f"{text} (--tasks {min(fewer, found.tasks - 1)}).")
    lost = waste.lost_s / cost.time_s
    if lost > _LOST:
        text = f"{counted(waste.cut_short, 'attempt')} cut short lost {share(lost, 1)} of the tasks' time"
        yield _Word(lost, f"{text}: `./voxarray logs {found.run} --errors` tells why they ended.")
    if waste.padding is not None and waste.padding > _PADDED:
        text = (
            f"{share(waste.padding, 1)} of what was computed was padding: fewer --tasks give each more items to sort."
        )
        yield _Word(waste.padding, text)


def gigabytes(megabytes: float) -> str:
    """`850 MB`, `1.2 GB`."""
    return (
        f"{figures(megabytes)} MB"
        if megabytes < 1000
        else f"{figures(megabytes / 1024, 2 if megabytes < 10240 else 3)} GB"
    )
