"""Many byte streams in one file, written in one pass with bounded memory; and the key joins built on it.

A spool has a number of buckets. What is added to a bucket is buffered and appended to the file in blocks; the places
of a bucket's blocks are its extents. Grouping rows by task, finding duplicates and joining two files by key all become
"spool by bucket, then take one bucket at a time", whose memory does not grow with the number of rows.
"""

from __future__ import annotations

from array import array
from pathlib import Path
from struct import Struct
from typing import IO, Iterator, Optional, Union

from pipelines.core import store

_MEMORY = 32 << 20
_BLOCK = 256 << 10
_BUCKETS = 256


class Spool:
    """`buckets` byte streams in one file. What is added at once stays together: blocks end between additions.

    `path` is what messages call the file; None: it is a temporary one.
    """

    def __init__(
        self, file: IO[bytes], buckets: int, start: int = 0, memory: int = _MEMORY, path: Optional[Path] = None
    ) -> None:
        self._file = file
        self._path = path or store.scratch_path()
        self._position = start
        self._block = max(2048, min(_BLOCK, memory // buckets))
        self._buffers = [bytearray() for _ in range(buckets)]
        self.extents: list[list[tuple[int, int]]] = [[] for _ in range(buckets)]

    def add(self, bucket: int, data: bytes) -> None:
        """Append `data` to a bucket."""
        buffer = self._buffers[bucket]
        buffer += data
        if len(buffer) >= self._block:
            self._flush(bucket)

    def _flush(self, bucket: int) -> None:
        buffer = self._buffers[bucket]
        if not buffer:
            return
        with store.teaching(self._path):
            self._file.write(buffer)
        self.extents[bucket].append((self._position, len(buffer)))
        self._position += len(buffer)
        buffer.clear()

    def finish(self) -> int:
        """Write what is still buffered. Returns the position behind the last block."""
        for bucket in range(len(self._buffers)):
            self._flush(bucket)
        return self._position

    @property
    def empty(self) -> bool:
        """Whether nothing was added."""
        return not any(self.extents) and not any(self._buffers)

    def read(self, bucket: int) -> Iterator[bytes]:
        """The blocks of a bucket in the order of adding, those still buffered included."""
        with store.teaching(self._path):
            self._file.flush()
        for offset, length in self.extents[bucket]:
            self._file.seek(offset)
            yield self._file.read(length)
        self._file.seek(self._position)
        if self._buffers[bucket]:
            yield bytes(self._buffers[bucket])


_PAIR = Struct("=QQ")


class KeyBuckets:
    """Pairs of an item key (64 bits) and a number, spread over buckets by the key's first byte."""

    def __init__(self) -> None:
        self._file = store.scratch()
        self._spool = Spool(self._file, _BUCKETS)
        self.duplicate_count = 0

    def __enter__(self) -> KeyBuckets:  # noqa: PYI034 - `Self` is not in Python 3.9
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the temporary file."""
        store.discard(self._file)

    def add(self, key: Union[str, bytes], number: int) -> None:
        """Add one pair; `key` is 16 hex digits."""
        value = int(key, 16)
        self._spool.add(value >> 56, _PAIR.pack(value, number))

    @property
    def empty(self) -> bool:
        """Whether nothing was added."""
        return self._spool.empty

    def bucket(self, number: int) -> tuple[array[int], array[int]]:
        """The keys and the numbers of one bucket, in the order of adding."""
        pairs: array[int] = array("Q")
        for block in self._spool.read(number):
            pairs.frombytes(block)
        return pairs[0::2], pairs[1::2]

    def buckets(self) -> Iterator[tuple[array[int], array[int]]]:
        """All buckets."""
        for number in range(_BUCKETS):
            yield self.bucket(number)

    def duplicates(self, limit: int) -> Iterator[tuple[int, int]]:
        """Up to `limit` pairs of numbers that share a key; counts all of them in `duplicate_count`."""
        self.duplicate_count = 0
        for keys, numbers in self.buckets():
            if len(set(keys)) == len(keys):
                continue
            first: dict[int, int] = {}
            for key, number in zip(keys, numbers):
                if key in first:
                    self.duplicate_count += 1
                    if self.duplicate_count <= limit:
                        yield first[key], number
                else:
                    first[key] = number


def join(left: KeyBuckets, right: KeyBuckets) -> Iterator[tuple[int, Optional[int]]]:
    """For every pair of `left`: its number, and the number of the pair in `right` with the same key, or None."""
    for bucket in range(_BUCKETS):
        keys, numbers = right.bucket(bucket)
        found = dict(zip(keys, numbers))
        for key, number in zip(*left.bucket(bucket)):
            yield number, found.get(key)
