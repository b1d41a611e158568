"""How much audio a batch may hold: found out once, and remembered for the tasks that follow."""

from __future__ import annotations

import logging
import re
import sys
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Callable, Optional

import msgspec

from pipelines.core import store
from pipelines.core.errors import StorageError

log = logging.getLogger(__name__)

_STEADY = 4
"""Full batches that must have fitted before a larger one is tried."""
_STEP = 1.25
_MOST = 8.0
"""Batches never grow beyond so many times what was begun with …"""
_FILLED = 0.8
"""… nor where, by what the memory held so far, they would fill more than this share of it …"""
_BELOW = 0.9
"""… nor beyond this share of what once failed."""


class _Known(msgspec.Struct):
    """What the file says. `begun_s` is what the backend asked for: if it asks for something else, all is forgotten."""

    begun_s: float
    fits_s: float
    failed_s: Optional[float] = None


class Size:
    """Padded seconds that a batch may hold at present: `now`. Thread-safe.

    `path` is the file where that is remembered (None: nowhere). `filled` gives the share of the device's memory that
    was in use at most since it was last asked; batches grow only where it is known.
    """

    def __init__(
        self, begin_s: float, path: Optional[Path] = None, filled: Optional[Callable[[], Optional[float]]] = None
    ) -> None:
        self._path, self._filled = path, filled
        self._known = _Known(begin_s, begin_s)
        self._steady = 0
        self._lock = Lock()
        if path is not None:
            with suppress(OSError, msgspec.MsgspecError):
                found = msgspec.json.decode(path.read_bytes(), type=_Known)
                if found.begun_s == begin_s and 0 < found.fits_s <= begin_s * _MOST:
                    self._known = found

    @property
    def now(self) -> float:
        """Padded seconds."""
        return self._known.fits_s

    @property
    def failed_s(self) -> Optional[float]:
        """The least that did not fit, if anything did not."""
        return self._known.failed_s

    def failed(self, padded_s: float) -> None:
        """A batch of so many padded seconds did not fit: half of it from now on."""
        with self._lock:
            known = self._known
            least = min(known.failed_s or padded_s, padded_s)
            self._steady = 0
            self._become(min(known.fits_s, padded_s / 2), least)
        log.info("The memory does not hold a batch of %.0f s; %.0f s from now on.", padded_s, self.now)

    def fitted(self, padded_s: float) -> None:
        """A batch of so many padded seconds went through. After some full ones, the next may be larger."""
        with self._lock:
            known = self._known
            if padded_s < _FILLED * known.fits_s or self._filled is None:
                return
            self._steady += 1
            if self._steady < _STEADY:
                return
            self._steady = 0
            share = self._filled()
            larger = min(known.fits_s * _STEP, known.begun_s * _MOST)
            if known.failed_s is not None:
                larger = min(larger, known.failed_s * _BELOW)
            if share is not None and share * _STEP <= _FILLED and larger > known.fits_s:
                self._become(larger, known.failed_s)

    def _become(self, fits_s: float, failed_s: Optional[float]) -> None:
        self._known = _Known(self._known.begun_s, fits_s, failed_s)
        if self._path is None:
            return
        try:
            with store.writing(self._path) as file:
                file.write(msgspec.json.encode(self._known))
        except StorageError as error:  # the next task finds out for itself
            log.debug("%s", error)


def file_for(folder: Path, *what: str) -> Path:
    """Where the size for a model on a device is remembered; `what` names both: ("nemo", model, precision, device)."""
    return folder / (re.sub(r"[^A-Za-z0-9.+-]+", "_", "-".join(what)).strip("_")[-150:] + ".json")


def gpu_filled() -> Optional[float]:
    """The share of the GPU's memory that was in use at most since this was last asked; None without a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    free, _ = torch.cuda.mem_get_info()
    most = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    # What other processes hold there is not to be had.
    return float(most) / max(1.0, float(free + torch.cuda.memory_reserved()))
