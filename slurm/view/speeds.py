"""How fast each task was, as inline SVG, and which were slow."""

from __future__ import annotations

import statistics
from typing import NamedTuple, Sequence

from slurm.view.attempts import Attempt
from slurm.view.svg import Box, Chart, grid
from slurm.view.tasks import SLOW
from slurm.view.words import amount, brief, figures

_TOP, _FLOOR = 28.0, 160.0
_TIPPED_BARS = 250
_FEWEST = 3
LEFT = 5.5
"""Percent of the width for labels, as in the timeline."""


class Speed(NamedTuple):
    """How fast a task was over all its attempts in a launch."""

    task: int
    host: str
    speed: float
    audio_seconds: float
    wall_s: float
    attempts: int
    slow: bool


def speeds(attempts: Sequence[Attempt]) -> list[Speed]:
    """The speed of every task of the launch that did most audio; those below half the median are slow."""
    by_launch: dict[int, float] = {}
    for attempt in attempts:
        by_launch[attempt.launch] = by_launch.get(attempt.launch, 0.0) + attempt.audio_seconds
    launch = max(by_launch, key=lambda number: by_launch[number], default=None)
    by_task: dict[int, list[Attempt]] = {}
    for attempt in attempts:
        # A dead attempt worked on after it had published last: how much it did until its last sign is not known.
        if attempt.launch == launch and attempt.wall_s > 0 and attempt.state not in ("silent", "died"):
            by_task.setdefault(attempt.task, []).append(attempt)
    found = []
    for task, tries in sorted(by_task.items()):
        audio, wall = sum(each.audio_seconds for each in tries), sum(each.wall_s for each in tries)
        found.append(Speed(task, tries[-1].host, audio / wall, audio, wall, len(tries), slow=False))
    if len(found) < _FEWEST:
        return found
    limit = SLOW * statistics.median(each.speed for each in found)
    return [each._replace(slow=each.speed < limit) for each in found]


def speed_bars(found: Sequence[Speed]) -> Chart:
    """One bar a task, and their median; slow tasks stand out. Beyond some hundred tasks, only these have tips."""
    chart = Chart(_FLOOR + 36, "Speed of every task in multiples of real time")
    most = max(each.speed for each in found)
    labels = grid(chart, _TOP, _FLOOR, most)
    pitch = (100 - LEFT) / len(found)
    gap = min(0.3, pitch * 0.15)
    bare = []
    for place, each in enumerate(found):
        tall = (_FLOOR - _TOP) * each.speed / most if most else 0.0
        box = Box(LEFT + place * pitch + gap / 2, _FLOOR - tall, pitch - gap, max(0.5, tall))
        if each.slow or len(found) <= _TIPPED_BARS:
            chart.rect(box, "two" if each.slow else "one", _speed_tip(each))
        else:
            bare.append(box)
    chart.blocks(bare, "one")
    chart.add(labels)
    median = statistics.median(each.speed for each in found)
    y = _FLOOR - (_FLOOR - _TOP) * median / most if most else _FLOOR
    chart.line(LEFT, y, 100, y, "mark")
    chart.text(100, 12, f"median {figures(median)}", "strong e")
    every = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**9) if len(found) / step <= 16)
    for place in range(0, len(found), every):
        chart.text(LEFT + (place + 0.5) * pitch, _FLOOR + 16, str(found[place].task), "tick m")
    chart.text(100, _FLOOR + 32, "task", "note e")
    return chart


def _speed_tip(each: Speed) -> str:
    tries = f" in {each.attempts} attempts" if each.attempts > 1 else ""
    return (
        f"task {each.task} on {each.host}: {figures(each.speed)} × real time; "
        f"{amount(each.audio_seconds)} of audio in {brief(each.wall_s)}{tries}"
    )
