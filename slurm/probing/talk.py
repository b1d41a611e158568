"""Words between the programs of one probe, as small files of one folder: said by a rename, heard by polling.

Standard library only. Whoever waits, waits with a limit: a file system that shows nothing ends in `SilenceError`.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Dict, Optional

LOGIN = "login"
"""The speaker on the machine that gave the command."""
PATIENCE_S = 75.0
"""Longer than an NFS client may keep a folder's listing (60 s)."""
_LEAST_LEAD_S, _MOST_LEAD_S = 0.2, 10.0
"""How long before a common start its moment is told: longer where words are heard late."""
_NUDGE_S = 0.5


class SilenceError(TimeoutError):
    """A word was not heard in time."""


def wait(holds: Callable[[], bool], patience_s: float) -> Optional[float]:
    """Seconds until something held, looked at more and more rarely (every 1 to 50 ms); None where it never did."""
    begun = time.monotonic()
    while not holds():
        elapsed = time.monotonic() - begun
        if elapsed > patience_s:
            return None
        time.sleep(min(0.05, 0.001 + elapsed / 20))
    return time.monotonic() - begun


class Talk:
    """One speaker among those that share a folder. Speakers: `0`, `1`, … by node, and `login`."""

    def __init__(
        self, folder: Path, speaker: str, nodes: int, patience_s: float = PATIENCE_S, prefix: str = ""
    ) -> None:
        self.folder, self.speaker, self.nodes = folder, speaker, nodes
        self.patience_s, self._prefix = patience_s, prefix
        self.offset_s = 0.0
        """How far this node's clock is ahead of the login node's, once that is known."""
        self._counter = itertools.count()
        self._nudged = self._delay_s = 0.0

    @property
    def others(self) -> list[str]:
        """The other nodes."""
        return [str(rank) for rank in range(self.nodes) if str(rank) != self.speaker]

    def about(self, topic: str) -> Talk:
        """The same speaker with another topic: its words are apart from all others."""
        other = Talk(self.folder, self.speaker, self.nodes, self.patience_s, f"{self._prefix}{topic}.")
        other.offset_s = self.offset_s
        return other

    def say(self, word: str, value: Any = None) -> None:
        """Say a word, or say it anew with another value."""
        path = self._path(self.speaker, word)
        private = path.with_name(f".{path.name}.{os.getpid()}-{next(self._counter)}.tmp")
        private.write_text(json.dumps({"value": value}), encoding="utf-8")
        os.replace(private, path)

    def said(self, speaker: str, word: str) -> Optional[Dict[str, Any]]:
        """`{"value": …}` as last said; None where nothing is seen yet."""
        path = self._path(speaker, word)
        with suppress(OSError, ValueError):
            # Who asks for a name too early may be told for a minute that it is not there; a listing is sooner anew.
            if any(entry.name == path.name for entry in os.scandir(self.folder)):
                found: Dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                return found
        return None

    def hear(self, speaker: str, word: str, patience_s: Optional[float] = None) -> Any:
        """The value of a word, once it is said. SilenceError where it is not heard in time."""
        limit = self.patience_s if patience_s is None else patience_s
        begun = time.monotonic()

        def heard() -> bool:
            if time.monotonic() - begun > _NUDGE_S:
                self.nudge()
            return self.said(speaker, word) is not None

        if wait(heard, limit) is None:
            raise SilenceError(f"nothing was heard from {_name(speaker)} within {limit:.0f} s ({self._prefix}{word})")
        return (self.said(speaker, word) or {}).get("value")

    def nudge(self) -> None:
        """Make a network file system look at the folder anew: its client does so once it has changed it itself."""
        if time.monotonic() - self._nudged > _NUDGE_S:
            self._nudged = time.monotonic()
            path = self.folder / f".look-{self.speaker}-{os.getpid()}-{next(self._counter)}"
            with suppress(OSError):
                path.touch()
                path.unlink()
                list(self.folder.iterdir())

    def meet(self, word: str, patience_s: Optional[float] = None) -> None:
        """Wait until every node has come so far."""
        self.say(word)
        for other in self.others:
            self.hear(other, word, patience_s)

    def start(self, word: str) -> None:
        """Meet, and go on at the same moment, as far as the clocks are known."""
        self.say(f"{word}.ready", self._delay_s)
        delays = [self._delay_s, *(self.hear(other, f"{word}.ready") for other in self.others)]
        if self.speaker == "0":
            lead = min(_MOST_LEAD_S, max(_LEAST_LEAD_S, 2 * max(delays)))
            self.say(f"{word}.go", [self._now(), self._now() + lead])
        said, moment = self.hear("0", f"{word}.go")
        self._delay_s = max(0.0, self._now() - said)
        time.sleep(max(0.0, min(_MOST_LEAD_S, moment - self._now())))

    def _now(self) -> float:
        """The login node's time, as far as it is known."""
        return time.time() - self.offset_s

    def _path(self, speaker: str, word: str) -> Path:
        return self.folder / f"{self._prefix}{word}.{speaker}"


def _name(speaker: str) -> str:
    return "the login node" if speaker == LOGIN else f"node {speaker}"
