"""The rows of a run as sorted streams, in the order of the present manifest.

Parts of a task whose index ranges follow each other form a chain, read one after the other. Rows that were dealt from
another state of the manifest (it grew, shrank or was reordered since) are given their present index by a join on their
keys, and sorted again on disk.
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left
from pathlib import Path
from typing import IO, Iterator, NamedTuple

from pipelines.core import parts, rawrows, store
from pipelines.core.run import Run
from pipelines.core.scan import Scan
from pipelines.core.spool import KeyBuckets, join

_MEMORY = 24 << 20
_CHUNK = 50_000

Block = tuple[list[int], list[bytes]]
"""Rows, and their indexes in the present manifest, ascending."""


class Stream:
    """Rows of one launch in the order of the present manifest; those no longer in it come last."""

    def __init__(self, launch: int, blocks: Iterator[Block]) -> None:
        self.launch = launch
        self._blocks = blocks
        self._places: list[int] = []
        self._rows: list[bytes] = []
        self._next = 0

    def take(self, limit: float) -> Iterator[Block]:
        """Rows with an index below `limit` that were not taken yet."""
        while True:
            end = bisect_left(self._places, limit, self._next)
            if end > self._next:
                yield self._places[self._next : end], self._rows[self._next : end]
                self._next = end
            if end < len(self._places):
                return
            self._places, self._rows = next(self._blocks, ([], []))
            self._next = 0
            if not self._places:
                return


class _Chain(NamedTuple):
    """Parts of one launch whose index ranges follow each other."""

    launch: int
    paths: list[Path]


def streams(run: Run, scan: Scan) -> list[Stream]:
    """All rows of a run."""
    present: list[_Chain] = []
    stale: list[tuple[int, Path]] = []
    for record in run.records():
        if record.manifest.order == scan.identity.order:
            present += _chains(record.number, run.parts_folder(record.number))
        else:
            stale += [(record.number, path) for _, _, path in parts.list_parts(run.parts_folder(record.number))]
    block = max(8 << 10, min(256 << 10, _MEMORY // max(1, len(present))))
    found = [Stream(chain.launch, _blocks_of(chain, block)) for chain in present]
    if stale:
        found += _translated(stale, scan.keys, scan.identity.items)
    return found


def _chains(launch: int, folder: Path) -> list[_Chain]:
    """As few chains as the overlaps of the parts' ranges allow."""
    ranges = []
    for _, _, path in parts.list_parts(folder):
        header = parts.read_header(path)
        if header is not None:
            ranges.append((header.task, header.first, header.last, path))
    ranges.sort()
    chains: list[_Chain] = []
    open_ends: list[tuple[int, int]] = []  # (last index, chain) of the present task's chains, a heap
    owner = -1
    for task, first, last, path in ranges:
        if task != owner:
            owner, open_ends = task, []
        if open_ends and open_ends[0][0] < first:
            _, number = heapq.heapreplace(open_ends, (last, open_ends[0][1]))
            chains[number].paths.append(path)
        else:
            heapq.heappush(open_ends, (last, len(chains)))
            chains.append(_Chain(launch, [path]))
    return chains


def _blocks_of(chain: _Chain, block: int) -> Iterator[Block]:
    for path in chain.paths:
        for rows in parts.blocks(path, block):
            try:
                places = rawrows.indexes(rows)
            except ValueError:
                raise parts.damaged(path, "the index of a row cannot be read") from None
            if places != sorted(places):
                raise parts.damaged(path, "its rows are out of order")
            yield places, rows


def _translated(stale: list[tuple[int, Path]], keys: KeyBuckets, items: int) -> list[Stream]:
    """Rows of launches that saw another manifest, with their present index, as sorted streams of a temporary file."""
    with KeyBuckets() as found:
        count = 0
        for _, rows in _stale_rows(stale):
            for key in rawrows.keys(rows):
                found.add(key, count)
                count += 1
        places = array("Q", bytes(8 * count))
        for number, index in join(found, keys):
            places[number] = items if index is None else index
    file = store.scratch()  # lives as long as the streams
    sorted_again: list[Stream] = []
    chunk: list[tuple[int, bytes]] = []
    position, owner = 0, -1
    for launch, rows in _stale_rows(stale):
        if launch != owner or len(chunk) >= _CHUNK:
            _spill(file, owner, chunk, sorted_again)
            owner = launch
        chunk += zip(places[position : position + len(rows)], rows)
        position += len(rows)
    _spill(file, owner, chunk, sorted_again)
    return sorted_again


def _stale_rows(stale: list[tuple[int, Path]]) -> Iterator[tuple[int, list[bytes]]]:
    for launch, path in stale:
        for rows in parts.blocks(path):
            yield launch, rows


def _spill(file: IO[bytes], launch: int, chunk: list[tuple[int, bytes]], streams: list[Stream]) -> None:
    """Sort a chunk of a launch's rows onto disk, and empty it."""
    if not chunk:
        return
    chunk.sort(key=lambda entry: entry[0])
    with store.teaching(store.scratch_path()):
        start = file.seek(0, 2)
        file.writelines(b"%d\t%s\n" % entry for entry in chunk)
        file.flush()
    streams.append(Stream(launch, _unspilled(file, start, file.tell())))
    chunk.clear()


def _unspilled(file: IO[bytes], position: int, end: int) -> Iterator[Block]:
    rest = b""
    while position < end:
        file.seek(position)
        data = file.read(min(1 << 16, end - position))
        position += len(data)
        lines = (rest + data).split(b"\n")
        rest = lines.pop()
        entries = [line.split(b"\t", 1) for line in lines]
        if entries:
            yield [int(place) for place, _ in entries], [row for _, row in entries]
