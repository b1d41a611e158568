"""How late one node sees what another has done in a folder: there and back, so that no clock has to be right.

Standard library only. Every node calls the same trial at the same time, each with its own `Talk`. Node 0 does
something that each of the others waits to see and answers in the same way.
"""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple

from slurm.probing.talk import Talk, wait

ROUNDS = 15
BUDGET_S = 20.0
"""A measurement ends after so many rounds, or seconds."""
_SETTLE_S = 0.02
_PEEK_S = 0.2
_LINES = 512

Answer = Dict[str, Any]


class Delay(NamedTuple):
    """A way of telling the other node a number: how to, how that is seen, and what has to be there before."""

    tell: Callable[[Path, int, str], None]
    seen: Callable[[Path, int, str], bool]
    prepare: Callable[[Path, int, str], None] = lambda _folder, _numbers, _speaker: None


def by_name(talk: Talk, folder: Path) -> Answer:
    """A new file, looked for by its name."""
    return _delays(talk, folder, Delay(_new, lambda place, number, who: (place / f"new-{number}.{who}").exists()))


def listed(talk: Talk, folder: Path) -> Answer:
    """A new file in a folder that was listed before."""
    return _delays(talk, folder, Delay(_new, lambda place, number, who: f"new-{number}.{who}" in _names(place)))


def renamed(talk: Talk, folder: Path) -> Answer:
    """A rename in a folder that was listed before: the new name is there, and the old one gone."""
    return _delays(talk, folder, Delay(_rename, _is_renamed, _olds))


def replaced(talk: Talk, folder: Path) -> Answer:
    """A rename over a file that is there: a reader must find the old one or the new one, whole."""
    file = _Replaced()
    answer = _delays(talk, folder, Delay(file.tell, file.seen, file.prepare))
    return {**answer, "reads": file.reads, "torn": file.torn}


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _new(folder: Path, number: int, speaker: str) -> None:
    (folder / f"new-{number}.{speaker}").touch()


def _olds(folder: Path, numbers: int, speaker: str) -> None:
    for number in range(numbers):
        (folder / f"old-{number}.{speaker}").touch()


def _rename(folder: Path, number: int, speaker: str) -> None:
    (folder / f"old-{number}.{speaker}").rename(folder / f"new-{number}.{speaker}")


def _is_renamed(folder: Path, number: int, speaker: str) -> bool:
    names = _names(folder)
    return f"new-{number}.{speaker}" in names and f"old-{number}.{speaker}" not in names


class _Replaced:
    """A file that is replaced again and again; counts the reads that found it missing or in pieces."""

    def __init__(self) -> None:
        self.reads = self.torn = 0

    def prepare(self, folder: Path, numbers: int, speaker: str) -> None:
        self.tell(folder, numbers, speaker)

    def tell(self, folder: Path, number: int, speaker: str) -> None:
        private = folder / f".value.{speaker}.tmp"
        private.write_text(f"{number:07d}\n" * _LINES, encoding="ascii")
        os.replace(private, folder / f"value.{speaker}")

    def seen(self, folder: Path, number: int, speaker: str) -> bool:
        self.reads += 1
        try:
            lines = (folder / f"value.{speaker}").read_text(encoding="ascii").splitlines()
        except OSError:
            lines = []
        if len(lines) != _LINES or len(set(lines)) != 1:
            self.torn += 1
            return False
        return lines[0] == f"{number:07d}"


def _delays(talk: Talk, folder: Path, delay: Delay) -> Answer:
    """Seconds there and back by node, as node 0 measured them; `lost`: the nodes that saw nothing at last."""
    delay.prepare(folder, ROUNDS * talk.nodes, talk.speaker)
    talk.meet("prepared")
    trips: Dict[str, List[float]] = {}
    lost = []
    for other in range(1, talk.nodes):
        numbers = range(ROUNDS * other, ROUNDS * (other + 1))
        if talk.speaker == "0":
            trips[str(other)] = _trips(talk, folder, delay, str(other), numbers)
            talk.say(f"over-{other}")
            if len(trips[str(other)]) < ROUNDS and sum(trips[str(other)]) < BUDGET_S:
                lost.append(str(other))
        elif talk.speaker == str(other):
            _answered(talk, folder, delay, numbers)
    return {"trips": trips, "lost": lost} if talk.speaker == "0" else {}


def _trips(talk: Talk, folder: Path, delay: Delay, other: str, numbers: range) -> list[float]:
    trips: list[float] = []
    for number in numbers:
        time.sleep(_SETTLE_S)  # so that the other has looked, and remembers that there was nothing
        begun = time.monotonic()
        delay.tell(folder, number, talk.speaker)
        if wait(lambda: delay.seen(folder, number, other), talk.patience_s) is None:  # noqa: B023 - called at once
            break
        trips.append(time.monotonic() - begun)
        if sum(trips) > BUDGET_S:
            break
    return trips


def _answered(talk: Talk, folder: Path, delay: Delay, numbers: range) -> None:
    """Answer every number that is seen, until node 0 says that it is over."""
    peeked = itertools.count()

    def is_over() -> bool:
        return next(peeked) % 20 == 0 and talk.said("0", f"over-{talk.speaker}") is not None

    for number in numbers:
        seen = False

        def one_of_both() -> bool:
            nonlocal seen
            seen = delay.seen(folder, number, "0")  # noqa: B023 - called at once
            return seen or is_over()

        if wait(one_of_both, 2 * talk.patience_s) is None or not seen:
            return
        delay.tell(folder, number, talk.speaker)
