"""Files that a pipeline writes one by one for its items: published whole, and found again by their size."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import IO, Iterator

import msgspec

from pipelines.core import store


class _Written(msgspec.Struct):
    """What a result says of its file, if it has one."""

    path: str = ""
    bytes: int = 0


_decode = msgspec.json.Decoder(_Written).decode


def is_whole(result: bytes) -> bool:
    """Whether the file that a result speaks of is there at its size; true for results without one."""
    written = _decode(result)
    if not written.path:
        return True
    try:
        return Path(written.path).stat().st_size == written.bytes
    except OSError:
        return False


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A private file that becomes `path` when it is whole and durable, whatever stood there before."""
    with store.writing(path, "w+b") as file:
        yield file
