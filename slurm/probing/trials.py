"""Whom a folder lets win, and whom its locks stop, when several nodes try at once.

Standard library only. Every node calls the same trial at the same time, each with its own `Talk`; a trial returns what
this node saw, and `slurm.probing.judge` puts the nodes' views together.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import IO, Any, Callable, Dict, List, Optional

from slurm.probing import delays
from slurm.probing.talk import Talk, wait

NAMES, BLOCKS = 100, 4
"""Names that all nodes try to take, and in how many starts."""
HELD, REFUSED, ENTERED, NONE = "held", "refused", "entered", "none"
_FREED_S = 15.0
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)

Answer = Dict[str, Any]
Trial = Callable[[Talk, Path], Answer]


def exclusive(talk: Talk, folder: Path) -> Answer:
    """Exclusive creation: each name goes to exactly one node."""

    def take(path: Path) -> bool:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        os.write(descriptor, talk.speaker.encode())
        os.close(descriptor)
        return True

    return _race(talk, folder, take)


def link(talk: Talk, folder: Path) -> Answer:
    """Hard links, by which parts are published: each name goes to exactly one node, with that node's content."""
    mine = folder / f".mine.{talk.speaker}"
    mine.write_text(talk.speaker, encoding="ascii")
    try:
        os.link(mine, folder / f".tried.{talk.speaker}")
        said = ""
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        said = error.strerror or str(error)
    talk.say("has-links", said)
    refusals = [said, *(talk.hear(other, "has-links") for other in talk.others)]
    if any(refusals):
        return {"none": next(filter(None, refusals))}

    def take(path: Path) -> bool:
        try:
            os.link(mine, path)
        except FileExistsError:
            return False
        return True

    return _race(talk, folder, take)


def _race(talk: Talk, folder: Path, take: Callable[[Path], bool]) -> Answer:
    """All nodes go through the same names at the same time. `won`: numbers; `owners`: what each name then holds."""
    won: List[int] = []
    for block in range(BLOCKS):
        talk.start(f"block-{block}")
        names = range(block * NAMES, (block + 1) * NAMES)
        won += [number for number in names if take(folder / f"name-{number}")]
    talk.meet("ran")
    return {"won": won, "owners": [_owner(folder / f"name-{number}") for number in range(BLOCKS * NAMES)]}


def _owner(path: Path) -> str:
    """Who took a name, as the file says; empty where it is not seen yet, or its content is not."""
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""


def flock(talk: Talk, folder: Path) -> Answer:
    """`flock`, with which tasks hold their shards: its holder keeps the others out, who get it once it is free."""
    return _locks(talk, folder, lambda file: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB))


def posix(talk: Talk, folder: Path) -> Answer:
    """The same for POSIX locks (fcntl)."""
    return _locks(talk, folder, lambda file: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB))


def _locks(talk: Talk, folder: Path, lock: Callable[[IO[str]], None]) -> Answer:
    """Each node in turn holds a lock that the others try. By holder: what this node got, and how soon it was free."""
    found: Answer = {}
    for holder in map(str, range(talk.nodes)):
        path, own = folder / f"lock-{holder}", talk.about(holder)
        if talk.speaker == holder:
            with path.open("a+", encoding="ascii") as file:
                got = _try(file, lock, HELD)
                own.say("held", got)
                for other in talk.others:
                    own.hear(other, "tried")
            own.say("freed")
            found[holder] = {"got": got}
        elif own.hear(holder, "held") == HELD:
            with path.open("a+", encoding="ascii") as file:
                got = _try(file, lock, ENTERED)
            own.say("tried")
            own.hear(holder, "freed")
            found[holder] = {"got": got, "freed_s": _freed_s(path, lock) if got == REFUSED else None}
        else:
            own.say("tried")
            found[holder] = {"got": NONE}
    return found


def _try(file: IO[str], lock: Callable[[IO[str]], None], success: str) -> str:
    try:
        lock(file)
    except OSError as error:
        return REFUSED if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else f"{NONE}: {error.strerror or error}"
    return success


def _freed_s(path: Path, lock: Callable[[IO[str]], None]) -> Optional[float]:
    def gets() -> bool:
        with path.open("a+", encoding="ascii") as file:
            return _try(file, lock, ENTERED) == ENTERED

    return wait(gets, _FREED_S)


TRIALS: Dict[str, Trial] = {
    "by name": delays.by_name,
    "listed": delays.listed,
    "renamed": delays.renamed,
    "replaced": delays.replaced,
    "exclusive": exclusive,
    "link": link,
    "flock": flock,
    "posix": posix,
}
"""All trials that need two nodes, in their order."""
