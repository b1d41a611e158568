"""Times, in one place and always in UTC."""

from __future__ import annotations

import time
from datetime import datetime, timezone


def now() -> float:
    """Seconds since the epoch, wall clock: for people and for comparing files of different machines."""
    return time.time()


def iso(seconds: float | None = None) -> str:
    """ISO 8601 in UTC, whole seconds: `2026-01-31T12:00:00Z`."""
    moment = datetime.fromtimestamp(now() if seconds is None else seconds, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def today() -> str:
    """The local date, `YYYY-MM-DD`: the date a user expects in a file's name."""
    return time.strftime("%Y-%m-%d")


def spoken(seconds: float) -> str:
    """A duration as people say it: `12.3 s`, `4 min 05 s`, `3 h 07 min`, `2 d 4 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 172800:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
