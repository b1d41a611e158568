"""Publication of files: whole or not at all, durable, and (where asked) first wins.

The bytes are written under a name private to the attempt in the destination's own folder, flushed and fsynced, then
given their final name with `os.link`, which refuses to replace (first wins on every POSIX and NFS file system), or
with `os.replace` where replacing is meant; then the folder is fsynced, so that the name survives a power cut too.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Iterator, Optional

import msgspec

from pipelines.core.errors import StorageError

ATTEMPT = f"{socket.gethostname().split('.')[0]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
"""Names this process among all processes on all nodes."""

_MAKER = re.compile(r"\.(?P<host>[^.]+)-(?P<process>\d+)-[0-9a-f]{8}(-[0-9a-f]{4})?\.tmp$")
LONGEST_NAME = 255
"""Bytes that nearly all file systems take in a file's name."""
_CLOCKS_DIFFER_S = 5.0
"""What clocks of file servers and nodes are trusted to differ by at most."""
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EXDEV}


def temporary(path: Path) -> Path:
    """A name beside `path` that no other attempt uses; hidden, so that no reader takes it for a result.

    A name that would become too long for a file system is digested.
    """
    name, end = path.name, f".{ATTEMPT}-{uuid.uuid4().hex[:4]}.tmp"
    if len(os.fsencode(name)) + len(end) >= LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return path.parent / f".{name}{end}"


def is_temporary(name: str) -> bool:
    """Whether a file name is one that `temporary` makes."""
    return name.startswith(".") and name.endswith(".tmp")


@contextmanager
def teaching(path: Path) -> Iterator[None]:
    """Turn an error of the file system into one paragraph about the place it happened at."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, error) from error


def storage_error(path: Path, error: OSError) -> StorageError:
    """The paragraph for `error` met while writing `path`."""
    folder = path.parent
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        try:
            free = f"{shutil.disk_usage(folder).free / 2**30:.2f} GB are free"
        except OSError:
            free = "the free space cannot be read"
        what = f"the disk or your quota is full ({free}); everything published before is safe. Make room"
        if folder == _scratch_folder():
            what += ", or let TMPDIR name a folder with more of it"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        what = "the folder cannot be written by this user. Mend its permissions, or set VOXARRAY_HOME"
    else:
        what = f"the file system said: {error.strerror or error}. Check the mount"
    return StorageError(f"{path} could not be written: {what}, then give the same command again: it resumes.")


def scratch() -> IO[bytes]:
    """A temporary file without a name, for what does not fit in memory. Write it within `teaching(scratch_path())`."""
    with teaching(scratch_path()):
        return tempfile.TemporaryFile(prefix="voxarray-")


def discard(file: IO[bytes]) -> None:
    """Close a temporary file; on a full disk, what is still buffered cannot be written, and need not be."""
    with suppress(OSError):
        file.close()


def scratch_path() -> Path:
    """What messages call a temporary file."""
    return _scratch_folder() / "voxarray-temporary"


def _scratch_folder() -> Path:
    return Path(tempfile.gettempdir())


def sync_folder(folder: Path) -> None:
    """Fsync a folder, so that the names in it are durable. Silent where folders cannot be opened or synced."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def writing(path: Path, mode: str = "wb", if_changed: bool = False) -> Iterator[IO[bytes]]:
    """Write a private file that replaces `path` when the block ends without an error, and vanishes otherwise.

    `if_changed`: what stands at `path` is left alone, its time too, where it is the same.
    """
    private = temporary(path)
    with teaching(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(private, mode) as file:  # noqa: PTH123 - `Path.open` types its result by literal modes only
                yield file
                file.flush()
                os.fsync(file.fileno())
            if if_changed and _is_same(private, path):
                private.unlink()
            else:
                os.replace(private, path)
        except BaseException:
            with suppress(OSError):
                private.unlink()
            raise
    sync_folder(path.parent)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.stat().st_size == other.stat().st_size and sha256_of(one) == sha256_of(other)
    except FileNotFoundError:
        return False


def replace(path: Path, data: bytes) -> None:
    """Publish `data` at `path`, durably, in place of whatever was there."""
    with writing(path) as file:
        file.write(data)


def publish(path: Path, data: bytes) -> bool:
    """Publish `data` at `path` unless the name is taken. Returns whether this call's bytes stand there: first wins."""
    private = temporary(path)
    with teaching(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with private.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            won = claim(private, path)
        finally:
            with suppress(OSError):
                private.unlink()
    sync_folder(path.parent)
    return won


def claim(private: Path, path: Path) -> bool:
    """Give the finished file `private` the name `path` unless it is taken. The private name may remain."""
    try:
        os.link(private, path)
    except FileExistsError:
        # A network file system can lose the reply of a link that succeeded: then both names share one inode.
        return _same_file(private, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _claim_without_links(private, path)
    return True


def _same_file(private: Path, path: Path) -> bool:
    try:
        return private.samefile(path)
    except OSError:
        return False


def _claim_without_links(private: Path, path: Path) -> bool:
    """Reserve the name exclusively, then replace the empty reservation. Readers take an empty file as unpublished.

    A reservation is never taken over, for its owner may be slow, not dead: a dead one costs the name, no more.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        return False
    os.replace(private, path)
    return True


def is_published(path: Path) -> bool:
    """Whether `path` stands with its content: an empty file is a name that was reserved and not filled yet."""
    try:
        return path.stat().st_size > 0
    except OSError:  # writing it will tell what is wrong
        return False


def ensure(path: Path, data: bytes) -> None:
    """Publish `data` at `path` unless something is there, where the bytes of any writer will do."""
    if not publish(path, data) and not is_published(path):
        replace(path, data)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_json(path: Path, value: object) -> None:
    """Publish `value` as indented JSON in place of whatever was there."""
    replace(path, pretty(value))


def pretty(value: object) -> bytes:
    """JSON for people: two spaces a level, one newline at the end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def replace_quickly(path: Path, data: bytes) -> None:
    """Replace `path` atomically but without fsync: for heartbeats, which the next one makes good."""
    private = path.parent / f".{path.name}.{ATTEMPT}.tmp"
    private.write_bytes(data)
    os.replace(private, path)


def is_abandoned(path: Path) -> bool:
    """Whether a private file's maker is gone: dead on this host, or silent for a day on any other."""
    if not is_temporary(path.name):
        return False
    written = path.stat().st_mtime
    return left_by_the_dead(path.name, written) or written < time.time() - 86400


def left_by_the_dead(name: str, written: Optional[float] = None) -> bool:
    """Whether a private file's name says that a process of this host made it, and that process is gone.

    `written`: when the file was; a process that began later has inherited the number of the file's maker.
    """
    match = _MAKER.search(name)
    if match is None or match["host"] != ATTEMPT.rsplit("-", 2)[0]:
        return False
    pid = int(match["process"])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return _is_another(pid, written)


def _is_another(pid: int, written: Optional[float]) -> bool:
    """Whether a process that exists is a zombie, or younger than a file (by seconds: clocks may differ). Linux."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return False
    return fields[0] in "ZX" or (written is not None and time.time() - age > written + _CLOCKS_DIFFER_S)
