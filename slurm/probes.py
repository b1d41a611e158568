"""What a file system does, found out by doing it: the engine's guarantees rest on links and renames, not on locks."""

from __future__ import annotations

import errno
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Callable, Mapping, NamedTuple, Optional

GOOD, NOTE, BAD = "ok", "note", "not fit"
UNKNOWN = "not seen"
"""It could not be looked at this time."""


class Finding(NamedTuple):
    """One thing that was looked at: how it stands, what was seen, and what to do about it where it is not well.

    `measured`: the numbers behind it, for programs.
    """

    topic: str
    name: str
    standing: str
    seen: str
    remedy: str = ""
    measured: Mapping[str, Any] = MappingProxyType({})


LOCAL_LOCKS = {
    "nolock": "locks hold on one node only",
    "local_lock=all": "locks hold on one node only",
    "local_lock=flock": "locks hold on one node only",
    "localflock": "locks hold on one node only",
    "noflock": "there are no locks",
}
"""Mount options that take a lock's meaning away between nodes."""
_SKEW_S = 5.0


def mount(path: Path) -> tuple[str, str]:
    """(type, options) of the file system that `path` lies on; empty where the system does not tell."""
    best, found = "", ("", "")
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return found
    for line in lines:
        _, point, kind, options = line.split(" ")[:4]
        inside = str(path) == point or str(path).startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, found = point, (kind, options)
    return found


def file_system(folder: Path) -> list[Finding]:
    """Try in `folder` (made if need be) all that the engine does; everything that is made is removed again."""
    topic = "file system"
    place = folder / f".doctor-{os.getpid()}-{time.time_ns()}"
    try:
        place.mkdir(parents=True)
    except OSError as error:
        remedy = "mend its permissions, or name another place with VOXARRAY_HOME"
        return [Finding(topic, str(folder), BAD, f"cannot be written: {error.strerror}", remedy)]
    try:
        return [_kind(topic, place), *(_tried(topic, name, try_it, place, remedy) for name, try_it, remedy in _TRIALS)]
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _kind(topic: str, place: Path) -> Finding:
    kind, options = mount(place.resolve())
    for option, what in LOCAL_LOCKS.items():
        if option in options.split(","):
            return Finding(
                topic, "type", NOTE, f"{kind}, mounted {option}: {what}; results stay right, work may be done twice"
            )
    return Finding(topic, "type", GOOD, kind or "unknown")


Trial = Callable[[Path], tuple[str, str]]


def _tried(topic: str, name: str, trial: Trial, place: Path, remedy: str) -> Finding:
    try:
        standing, seen = trial(place)
    except OSError as error:
        standing, seen = BAD, f"failed: {error.strerror or error}"
    return Finding(topic, name, standing, seen, "" if standing == GOOD else remedy)


def _link(place: Path) -> tuple[str, str]:
    first, second, taken = place / "first", place / "second", place / "taken"
    for path in (first, second):
        path.write_text(path.name, encoding="utf-8")
    try:
        os.link(first, taken)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            return NOTE, "no hard links here; parts are published by exclusive creation and rename instead"
        raise
    with suppress(FileExistsError):
        os.link(second, taken)
        return BAD, "a link replaced a file that was there"
    return GOOD, "publish a name once, first wins"


def _rename(place: Path) -> tuple[str, str]:
    new, old = place / "new", place / "old"
    new.write_text("new", encoding="utf-8")
    old.write_text("old", encoding="utf-8")
    os.replace(new, old)
    return (GOOD, "replaces whole files") if old.read_text(encoding="utf-8") == "new" else (BAD, "lost the new file")


def _exclusive(place: Path) -> tuple[str, str]:
    os.close(os.open(place / "exclusive", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    with suppress(FileExistsError):
        os.close(os.open(place / "exclusive", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        return BAD, "a file was created twice"
    return GOOD, "refuses a name that is taken"


def _flock(place: Path) -> tuple[str, str]:
    import fcntl

    with (place / "lock").open("a") as one, (place / "lock").open("a") as two:
        try:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return NOTE, f"no locks here ({error.strerror}); results stay right, work may be done twice"
        with suppress(BlockingIOError):
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return NOTE, "a lock does not exclude; results stay right, work may be done twice"
    return GOOD, "excludes on this node"


def _sync(place: Path) -> tuple[str, str]:
    begun = time.perf_counter()
    with (place / "synced").open("wb") as file:
        file.write(b"x" * 65536)
        file.flush()
        os.fsync(file.fileno())
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    took = time.perf_counter() - begun
    return (GOOD if took < 1 else NOTE), f"a file and its folder are durable after {took * 1000:.0f} ms"


def _clock(place: Path) -> tuple[str, str]:
    path = place / "clock"
    path.write_bytes(b"")
    skew = path.stat().st_mtime - time.time()
    if abs(skew) > _SKEW_S:
        return NOTE, f"the file server's clock is {skew:+.0f} s off this node's: heartbeats look too old or too new"
    return GOOD, "the file server's clock agrees with this node's"


_OTHER_PLACE = "put voxarray's data elsewhere: VOXARRAY_HOME=/path"
_TRIALS: tuple[tuple[str, Trial, str], ...] = (
    ("link", _link, ""),
    ("rename", _rename, _OTHER_PLACE),
    ("exclusive create", _exclusive, _OTHER_PLACE),
    ("lock", _flock, ""),
    ("fsync", _sync, ""),
    ("clock", _clock, "ask for time synchronisation (chrony, ntp)"),
)


def space(folder: Path) -> Finding:
    """The free space where results go."""
    existing: Optional[Path] = folder
    while existing is not None and not existing.exists():
        existing = existing.parent if existing.parent != existing else None
    free = shutil.disk_usage(existing or Path("/")).free / 2**30
    standing = BAD if free < 1 else NOTE if free < 10 else GOOD  # GB
    remedy = "make room, or name another place with VOXARRAY_HOME" if standing != GOOD else ""
    return Finding("file system", "space", standing, f"{free:,.1f} GB free for {folder}", remedy)
