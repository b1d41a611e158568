"""The columns of statistics: apart from what computes them, so that the merge needs no numerical packages."""

from __future__ import annotations

COLUMNS = (
    "max-spoken",
    "min-spoken",
    "avg-spoken",
    "max-nospch",
    "min-nospch",
    "avg-nospch",
    "spch-ratio",
)
