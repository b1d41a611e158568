"""How a run went, as inline SVG: items done over time, and on the same axis every attempt at every task."""

from __future__ import annotations

from typing import Sequence

from slurm.view.attempts import CUT_SHORT, Attempt, busy_intervals
from slurm.view.headers import PartFile
from slurm.view.speeds import LEFT
from slurm.view.svg import Box, Chart
from slurm.view.time_axis import TimeAxis
from slurm.view.words import TASK_STATES, amount, brief, counted, figures

_POINTS = 240
_CURVE_TOP, _CURVE_FLOOR = 40.0, 150.0
_MOST_ROWS, _TIPPED_ROWS, _TALLEST = 400, 128, 560.0
_STYLES = {"finished": "one", CUT_SHORT: "two", "stopped": "two", "silent": "bad", "died": "bad", "failed": "bad"}


def axis(attempts: Sequence[Attempt]) -> TimeAxis:
    """The time axis that fits all attempts."""
    return TimeAxis(busy_intervals(attempts), LEFT)


def progress_points(files: Sequence[PartFile], attempts: Sequence[Attempt]) -> list[tuple[float, int]]:
    """(time, items done until then), at most `_POINTS` of them, from the times at which parts were published."""
    steps = sorted((file.header.published, file.header.rows - file.header.failed) for file in files)
    published: dict[tuple[int, int, str], int] = {}
    for _, header in files:
        key = (header.launch, header.task, header.attempt)
        published[key] = published.get(key, 0) + header.rows - header.failed
    for attempt in attempts:
        more = attempt.done - published.get(attempt[:3], 0)
        if more > 0:
            steps.append((attempt.end, more))
    steps.sort()
    points, total = [(min((attempt.start for attempt in attempts), default=0.0), 0)], 0
    every = max(1, len(steps) // _POINTS)
    for place, (time, done) in enumerate(steps, 1):
        total += done
        if place % every == 0 or place == len(steps):
            points.append((time, total))
    return points


def course(points: Sequence[tuple[float, int]], attempts: Sequence[Attempt], along: TimeAxis, items: int) -> Chart:
    """Items done over time, and below it what each task was doing."""
    rows = {attempt[:2] for attempt in attempts}
    kept = {row: place for place, row in enumerate(rows_shown(attempts))}
    pitch = min(16.0, max(1.0, _TALLEST / max(1, len(kept))))
    top = _CURVE_FLOOR + 34
    chart = Chart(top + pitch * len(kept) + 26, "Items done over time, and the attempts at every task")
    _frame(chart, along, top + pitch * len(kept))
    _curve(chart, points, along, items)
    chart.text(0, top - 8, "task", "tick")
    _labels(chart, kept, top, pitch)
    _attempts(chart, [attempt for attempt in attempts if attempt[:2] in kept], kept, along, (top, pitch))
    if len(kept) < len(rows):
        chart.text(100, top - 8, f"{len(kept):,} of {len(rows):,} tasks are shown", "tick e")
    return chart


def rows_shown(attempts: Sequence[Attempt]) -> list[tuple[int, int]]:
    """(launch, task) of the rows: all, or those that went wrong or ended last, and an even sample of the others."""
    rows = sorted({attempt[:2] for attempt in attempts})
    if len(rows) <= _MOST_ROWS:
        return rows
    by_end = sorted(attempts, key=lambda attempt: -attempt.end)
    odd = [attempt[:2] for attempt in by_end if attempt.state not in ("finished", "running")]
    chosen = {*odd[: _MOST_ROWS // 4], *(attempt[:2] for attempt in by_end[:20])}
    rest = [row for row in rows if row not in chosen]
    every = -(-len(rest) // (_MOST_ROWS - len(chosen)))
    return sorted({*chosen, *rest[::every]})


def _frame(chart: Chart, along: TimeAxis, floor: float) -> None:
    for tick in along.ticks():
        chart.line(tick.x, _CURVE_TOP - 8, tick.x, floor, "grid")
        chart.text(tick.x, floor + 16, tick.label, "tick e" if tick.x > 97 else "tick m")
    for pause in along.pauses():
        chart.rect(Box(pause.x - 1, _CURVE_TOP - 8, 2, floor - _CURVE_TOP + 8), "pause", f"{pause.label} without work")
        chart.text(pause.x, _CURVE_TOP - 14, f"{pause.label} pause", "tick m" if pause.x < 90 else "tick e")


def _curve(chart: Chart, points: Sequence[tuple[float, int]], along: TimeAxis, items: int) -> None:
    most = max(items, 1)
    tall = _CURVE_FLOOR - _CURVE_TOP
    placed = [(along.x(time), _CURVE_FLOOR - tall * min(1.0, done / most)) for time, done in points]
    chart.line(LEFT, _CURVE_TOP, 100, _CURVE_TOP, "grid")
    chart.text(LEFT, _CURVE_TOP - 6, counted(most, "item"), "tick")
    chart.curve(placed, _CURVE_FLOOR, "one")
    chart.line(LEFT, _CURVE_FLOOR, 100, _CURVE_FLOOR, "axis")


def _labels(chart: Chart, kept: dict[tuple[int, int], int], top: float, pitch: float) -> None:
    last = -99.0
    several = len({launch for launch, _ in kept}) > 1
    for (launch, task), place in kept.items():
        y = top + pitch * (place + 0.5) + 4
        if y - last >= 14:
            chart.text(LEFT - 0.8, y, f"{launch}·{task}" if several else str(task), "tick e")
            last = y


def _attempts(
    chart: Chart,
    attempts: Sequence[Attempt],
    kept: dict[tuple[int, int], int],
    along: TimeAxis,
    place: tuple[float, float],
) -> None:
    """Bars with tips for some hundred rows; for more, bars alone, which take a tenth of the bytes."""
    top, pitch = place
    bare: dict[str, list[Box]] = {}
    for attempt in attempts:
        left, right = along.x(attempt.start), along.x(attempt.end)
        y = top + pitch * kept[attempt[:2]]
        box = Box(left, y + pitch * 0.12, max(0.15, right - left), pitch * 0.76)
        style = _STYLES.get(attempt.state, "live")
        if len(kept) <= _TIPPED_ROWS:
            chart.rect(box, style, _attempt_tip(attempt))
        else:
            bare.setdefault(style, []).append(box)
    for style, boxes in bare.items():
        chart.blocks(boxes, style)


def _attempt_tip(attempt: Attempt) -> str:
    state = attempt.state if attempt.state == CUT_SHORT else TASK_STATES.get(attempt.state, attempt.state)
    speed = f", {figures(attempt.audio_seconds / attempt.wall_s)} × real time" if attempt.wall_s else ""
    failed = f", {attempt.failed:,} failed tries" if attempt.failed else ""
    return (
        f"launch {attempt.launch}, task {attempt.task} on {attempt.host}: {state} after {brief(attempt.wall_s)}; "
        f"{counted(attempt.done, 'item')}{failed}, {amount(attempt.audio_seconds)} of audio{speed}"
    )
