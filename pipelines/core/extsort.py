"""External sorting: more rows than fit in memory are sorted in chunks on disk, then merged as streams."""

from __future__ import annotations

import heapq
from typing import IO, Iterable, Iterator

from pipelines.core import store

CHUNK = 100_000
"""Lines sorted in memory at once."""
_BLOCK = 1 << 16


def sorted_lines(lines: Iterable[bytes], chunk: int = CHUNK) -> Iterator[bytes]:
    """The lines (each with its newline) in byte order. Memory: one chunk, then one block a chunk."""
    file = store.scratch()
    try:
        extents: list[tuple[int, int]] = []
        held: list[bytes] = []
        for line in lines:
            held.append(line)
            if len(held) == chunk:
                extents.append(_spill(file, held))
        held.sort()
        if not extents:
            yield from held
            return
        extents.append(_spill(file, held))
        yield from heapq.merge(*(_stream(file, *extent) for extent in extents))
    finally:
        store.discard(file)


def _spill(file: IO[bytes], held: list[bytes]) -> tuple[int, int]:
    held.sort()
    with store.teaching(store.scratch_path()):
        start = file.seek(0, 2)
        file.writelines(held)
        file.flush()
    held.clear()
    return start, file.tell()


def _stream(file: IO[bytes], position: int, end: int) -> Iterator[bytes]:
    """The lines between two positions of a file that other streams read too."""
    rest = b""
    while position < end:
        file.seek(position)
        data = file.read(min(_BLOCK, end - position))
        position += len(data)
        lines = (rest + data).split(b"\n")
        rest = lines.pop()
        for line in lines:
            yield line + b"\n"
