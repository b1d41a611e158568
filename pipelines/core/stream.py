"""The merged stream of a run's rows: sorted parts read side by side, in the order of the present manifest.

Parts of a task whose index ranges follow each other form a chain, read one after the other. Rows that were dealt from
another state of the manifest (it grew, shrank or was reordered since) are given their present index by a join on their
keys, and sorted again on disk.
"""

from __future__ import annotations

import heapq
from array import array
from pathlib import Path
from typing import IO, Iterator, NamedTuple

import msgspec

from pipelines.core import parts, store
from pipelines.core.parts import Row
from pipelines.core.run import Run
from pipelines.core.scan import Scan
from pipelines.core.spool import KeyBuckets, join

_MEMORY = 48 << 20
_CHUNK = 50_000

Entry = tuple[int, int, Row]
"""(index in the present manifest, launch, row)."""


class _Chain(NamedTuple):
    """Parts of one launch whose index ranges follow each other."""

    launch: int
    paths: list[Path]


def entries(run: Run, scan: Scan) -> Iterator[Entry]:
    """(present index, launch, row) of all rows, ascending; those no longer in the manifest come last."""
    present: list[_Chain] = []
    stale: list[tuple[int, Path]] = []
    for record in run.records():
        if record.manifest.order == scan.identity.order:
            present += _chains(record.number, run.parts_folder(record.number))
        else:
            stale += [(record.number, path) for _, _, path in parts.list_parts(run.parts_folder(record.number))]
    block = max(8 << 10, min(256 << 10, _MEMORY // max(1, len(present))))
    streams: list[Iterator[Entry]] = [_rows_of(link, block) for link in present]
    if stale:
        streams += _translated(stale, scan.keys, scan.identity.items)
    return heapq.merge(*streams, key=_index)


def _index(entry: Entry) -> int:
    return entry[0]


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


def _rows_of(link: _Chain, block: int) -> Iterator[Entry]:
    for path in link.paths:
        for row in parts.rows(path, block):
            yield row.index, link.launch, row


def _translated(stale: list[tuple[int, Path]], keys: KeyBuckets, items: int) -> list[Iterator[Entry]]:
    """Rows of launches that saw another manifest, with their present index, as sorted streams."""
    with KeyBuckets() as found:
        count = 0
        for _, row in _stale_rows(stale):
            found.add(row.key, count)
            count += 1
        places = array("Q", bytes(8 * count))
        for number, index in join(found, keys):
            places[number] = items if index is None else index
    file = store.scratch()  # lives as long as the streams
    streams: list[Iterator[Entry]] = []
    chunk: list[tuple[int, int, bytes]] = []
    for place, (launch, row) in zip(places, _stale_rows(stale)):
        chunk.append((place, launch, msgspec.json.encode(row)))
        if len(chunk) == _CHUNK:
            streams.append(_spilled(file, chunk))
            chunk = []
    chunk.sort(key=lambda entry: entry[0])
    streams.append((place, launch, msgspec.json.decode(row, type=Row)) for place, launch, row in chunk)
    return streams


def _stale_rows(stale: list[tuple[int, Path]]) -> Iterator[tuple[int, Row]]:
    for launch, path in stale:
        for row in parts.rows(path):
            yield launch, row


def _spilled(file: IO[bytes], chunk: list[tuple[int, int, bytes]]) -> Iterator[Entry]:
    chunk.sort(key=lambda entry: entry[0])
    with store.teaching(store.scratch_path()):
        start = file.seek(0, 2)
        file.writelines(b"%d\t%d\t%s\n" % entry for entry in chunk)
        file.flush()
    return _unspilled(file, start, file.tell())


def _unspilled(file: IO[bytes], position: int, end: int) -> Iterator[Entry]:
    rest = b""
    while position < end:
        file.seek(position)
        data = file.read(min(1 << 16, end - position))
        position += len(data)
        lines = (rest + data).split(b"\n")
        rest = lines.pop()
        for line in lines:
            place, launch, row = line.split(b"\t", 2)
            yield int(place), int(launch), msgspec.json.decode(row, type=Row)
