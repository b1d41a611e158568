"""Logging: one format everywhere, UTC like every other time."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import IO, Optional

_FORMAT = "%(asctime)s %(message)s"


def _formatter() -> logging.Formatter:
    formatter = logging.Formatter(_FORMAT, "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    return formatter


def to_stream(stream: IO[str], plain: bool = False) -> None:
    """Send the log to a stream; `plain` leaves the time out (for a terminal)."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s") if plain else _formatter())
    _install(handler)


def to_file(path: Path) -> Optional[logging.Handler]:
    """Send the log to a file as well (appended). None where it cannot be written: the stream must do."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError:
        return None
    handler.setFormatter(_formatter())
    _install(handler)
    return handler


def _install(handler: logging.Handler) -> None:
    root = logging.getLogger("pipelines")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    root.propagate = False
    logging.getLogger("slurm").handlers = root.handlers
    logging.getLogger("slurm").setLevel(logging.INFO)
