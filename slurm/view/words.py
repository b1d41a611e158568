"""Numbers and states in plain words."""

from __future__ import annotations

TASK_STATES = {
    "pending": "waiting to start",
    "queued": "in the queue",
    "absent": "never began",
    "idle": "nothing to do",
    "starting": "starting",
    "waiting": "waits for its lock",
    "loading": "loading the model",
    "running": "at work",
    "retrying": "retrying alone",
    "finished": "finished",
    "stopped": "stopped by signal",
    "failed": "cannot go on",
    "silent": "silent",
    "died": "its process died",
}
"""A task's state → what a person reads."""

RUN_STATES = {
    "planned": "planned, nothing launched yet",
    "queued": "waiting to start",
    "running": "running",
    "finished": "finished, not merged yet",
    "merged": "merged",
    "incomplete": "incomplete: nothing is at work on it",
    "stalled": "stalled: its tasks are silent",
    "cancelled": "cancelled",
}
"""A run's state → what a person reads."""


def figures(value: float, digits: int = 3) -> str:
    """A number with so many significant figures and thousands separators: `0.83`, `19.5`, `312`, `12,345`."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits}g}")
    if abs(rounded) >= 10 ** (digits - 1):
        return f"{round(value):,}"
    return f"{rounded:.{digits}g}"


def amount(seconds: float) -> str:
    """An amount of time: `90 ms`, `8.2 s`, `12.3 min`, `61.2 h`, `1,234 h`."""
    if 0 < seconds < 0.9995:
        return f"{figures(seconds * 1000, 2)} ms"
    if seconds < 60:
        return f"{figures(seconds)} s"
    if seconds < 3600:
        return f"{figures(seconds / 60)} min"
    return f"{figures(seconds / 3600)} h"


def brief(seconds: float) -> str:
    """A time span in one unit: `450 ms`, `3 s`, `5 min`, `2 h`, `3 d`."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for limit, size, unit in ((90, 1, "s"), (5400, 60, "min"), (129600, 3600, "h")):
        if seconds < limit:
            return f"{max(0.0, seconds) / size:.0f} {unit}"
    return f"{seconds / 86400:,.0f} d"


def share(part: float, whole: float) -> str:
    """A share in percent that says 0 or 100 only where that is so."""
    if not whole:
        return "–"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "<0.1 %"
    if 99.9 < percent < 100:
        return ">99.9 %"
    return f"{percent:.1f} %" if (percent < 10 or percent > 99) and percent not in (0, 100) else f"{percent:.0f} %"


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 item`, `2,345 items`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
