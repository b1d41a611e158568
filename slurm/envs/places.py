"""Where the environments are: prefixes, their stamps, and the lock that lets one process at a time make one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import sys
from pathlib import Path
from typing import Dict, Iterator, List

from pipelines.core.errors import EnvironmentNotFit
from pipelines.core.paths import repository
from slurm.envs.definition import Definition

VARIABLE = "VOXARRAY_ENVS"
"""Overrides the folder of the prefixes."""

STAMP = ".voxarray-stamp"
"""Written last into a prefix: the environment is complete, and this is what it was made from (`key value` lines)."""

LOCK_COPY = ".voxarray-lock"
"""The lock that the launcher's environment was made from: bash compares it without starting another program."""

STDERR = 2
"""Where the programs that make environments report to; standard output stays the command's own."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def roots() -> List[Path]:
    """Folders that may hold prefixes, the preferred one first: the repository's, then the user's cache."""
    override = os.environ.get(VARIABLE)
    if override:
        return [Path(override).expanduser().absolute()]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME") or "/nonexistent") / ".cache")
    digest = hashlib.sha256(str(repository()).encode()).hexdigest()[:16]
    return [repository() / "envs" / ".prefix", cache / "voxarray" / digest]


def is_writable(folder: Path) -> bool:
    """Whether `folder` can be written to, or made."""
    while not folder.exists():
        if folder.parent == folder:
            return False
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def writable_root() -> Path:
    """The preferred folder of prefixes that can be written to, made when missing."""
    for root in roots():
        if is_writable(root):
            root.mkdir(parents=True, exist_ok=True)
            return root
    raise EnvironmentNotFit(
        f"There is nowhere to put an environment: {' and '.join(map(str, roots()))} cannot be written to. "
        f"Set {VARIABLE} to a folder of yours, best on a file system that every node sees, and run this again."
    )


def prefix(definition: Definition) -> Path:
    """The prefix of an environment: where it is ready, else where it would be made."""
    candidates = [root / definition.name for root in roots()]
    for candidate in candidates:
        if is_current(candidate, definition):
            return candidate
    for candidate in candidates:
        if is_writable(candidate.parent):
            return candidate
    return candidates[0]


def python(folder: Path) -> Path:
    """The interpreter inside a prefix."""
    return folder / "bin" / "python"


def read_stamp(folder: Path) -> Dict[str, str]:
    """What the environment in `folder` was made from; empty where none was finished there."""
    try:
        lines = (folder / STAMP).read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return dict(line.split(" ", 1) for line in lines if " " in line)


def write_stamp(folder: Path, values: Dict[str, str]) -> None:
    """Declare the environment in `folder` complete, at once and durably."""
    temporary = folder / f"{STAMP}.{os.getpid()}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(f"{key} {value}\n" for key, value in values.items())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / STAMP)


def made() -> List[str]:
    """Names of the environments that were finished at some time, whatever their lock says now."""
    return sorted({path.parent.name for root in roots() for path in root.glob(f"*/{STAMP}")})


def is_current(folder: Path, definition: Definition) -> bool:
    """Whether `folder` holds this environment, complete, from the present lock, with an interpreter that is there."""
    stamp = read_stamp(folder)
    wanted = definition.digest()
    version = ".".join(stamp.get("python", "").split(".")[:2])
    return (
        wanted is not None
        and stamp.get("lock") == wanted
        and (len(definition.pythons) > 1 or version in definition.pythons)
        and os.access(python(folder), os.X_OK)
    )


@contextlib.contextmanager
def exclusive(root: Path, name: str) -> Iterator[bool]:
    """Hold the right to make environment `name` in `root`; the operating system frees it when the holder dies.

    Yields whether the lock is real: some cluster file systems have none, and then nothing keeps two makers apart.
    """
    with (root / f".{name}.lock").open("a", encoding="utf-8") as file:
        yield _acquire(file.fileno(), name)


def _acquire(descriptor: int, name: str) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            say(f"this file system has no locks; do not make environment {name} twice at the same time")
            return False
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        say(f"another process is making environment {name}; waiting for it")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return True


def say(line: str) -> None:
    """One line of progress, on standard error so that standard output stays the command's own."""
    print(f"voxarray: {line}", file=sys.stderr, flush=True)
