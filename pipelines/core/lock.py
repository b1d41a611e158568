"""File locks that spare double work. Nothing's correctness rests on them.

Locks do not hold on every cluster file system (NFS with `nolock`, Lustre with `localflock`), and mixed releases of
filelock on one path have been seen to overlap. So parts are published by name, first wins, and merges are idempotent;
a lock only keeps two attempts from doing the same work side by side.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterable, Iterator

from filelock import FileLock, Timeout

from pipelines.core import clock, provenance, store
from pipelines.core.errors import LockedError, listed

log = logging.getLogger(__name__)


@contextmanager
def held(path: Path, wait_s: float, what: str) -> Iterator[None]:
    """Hold the lock at `path`, waiting at most `wait_s` seconds, then stop with `LockedError`; `what` is locked.

    Where the file system has no locks at all, go on without one and say so.
    """
    lock = _lock(path)
    locked = True
    try:
        _acquire(lock, path, wait_s, what)
    except (NotImplementedError, OSError) as error:
        if not _no_locks_here(error):
            raise store.storage_error(path, error) from error  # type: ignore[arg-type]
        log.warning(
            "This file system has no locks (%s); going on without: results stay right, work may be done twice.", error
        )
        locked = False
    if locked:
        _note_owner(path)
    try:
        yield
    finally:
        if locked:
            with suppress(OSError):
                _owner_file(path).unlink()
            lock.release()


@contextmanager
def tried(path: Path) -> Iterator[bool]:
    """Hold the lock at `path` if it is free at once; yields whether it was."""
    lock = _lock(path)
    try:
        lock.acquire(timeout=0)
    except (Timeout, NotImplementedError, OSError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _lock(path: Path) -> FileLock:
    """A lock of the kernel's. The soft kind that newer filelocks fall back to would outlive its holder's node."""
    with store.teaching(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(str(path), fallback_to_soft=False)
    except TypeError:  # older filelocks do not fall back
        return FileLock(str(path))


def _acquire(lock: FileLock, path: Path, wait_s: float, what: str) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _raise_without_locks(path)
        log.info("%s is held by %s; waiting up to %s.", what, owner(path), clock.spoken(wait_s))
        try:
            lock.acquire(timeout=wait_s, poll_interval=min(1.0, max(0.05, wait_s / 50)))
        except Timeout:
            raise LockedError(
                f"{what} is held by {owner(path)}, and was not given up within {clock.spoken(wait_s)}. That attempt "
                "is still at work (or its node lost contact): let it finish, or cancel it. Nothing is lost; what it "
                "leaves undone is redone by the next launch."
            ) from None


def _raise_without_locks(path: Path) -> None:
    """Raise the kernel's error where it has no locks here: older filelocks take that for a lock that another holds."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if _no_locks_here(error):
            raise
    finally:
        os.close(descriptor)


def _no_locks_here(error: Exception) -> bool:
    return isinstance(error, NotImplementedError) or (
        isinstance(error, OSError) and error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
    )


def _owner_file(path: Path) -> Path:
    return path.with_name(path.name + ".owner")


def _note_owner(path: Path) -> None:
    job = provenance.scheduler_job()
    text = f"{provenance.host()} process {os.getpid()}{f' (job {job})' if job else ''} since {clock.iso()}"
    with suppress(OSError):
        _owner_file(path).write_text(text, encoding="utf-8")


def is_held(path: Path) -> bool:
    """Whether another holds the lock at `path`. Where the file system has no locks nobody knows: then it is not."""
    with tried(path) as free:
        if free:
            return False
    try:
        _raise_without_locks(path)
    except (NotImplementedError, OSError) as error:
        return not _no_locks_here(error)
    return True


def at_work(folders: Iterable[Path]) -> str:
    """Who holds locks of tasks in these folders, as they noted: attempts that live. Empty: nobody."""
    locks = (path for folder in folders for path in sorted(folder.glob("task_*.lock")))
    found = [
        f"task {path.stem.rpartition('_')[2].lstrip('0') or '0'} ({owner(path)})" for path in locks if is_held(path)
    ]
    return listed(found, len(found))


def owner(path: Path) -> str:
    """Who holds the lock at `path`, as its holder noted."""
    try:
        return _owner_file(path).read_text(encoding="utf-8") or "another process"
    except OSError:
        return "another process"
