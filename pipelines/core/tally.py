"""The count behind a merge: one pass over the manifest and the streams of rows, every row explained.

Manifest and rows are taken side by side in windows of a fixed number of items. What is done goes from the parts to the
output as bytes; only failures are parsed.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Callable, Iterator, Optional, Sequence

import msgspec

from pipelines.core import ledger, manifest, parts, rawrows
from pipelines.core.errors import LISTED
from pipelines.core.pipeline import ErrorInfo, Output, RowsOutput
from pipelines.core.stream import Block, Stream

WINDOW = 1 << 15
"""Items merged at a time."""


class RowMismatch(Exception):  # noqa: N818 - says what was seen; the merge says what it means
    """A row stands at the index of another item: the manifest was changed, or a part was."""


class Cause(msgspec.Struct):
    """Quarantined items that failed for one reason."""

    signature: str
    count: int
    example: str
    message: str


class _Window:
    """Items of the manifest that follow each other, and what was made of them."""

    def __init__(self, first: int, rows: list[bytes]) -> None:
        self.first = first
        self.rows = rows
        self.results: list[Optional[bytes]] = [None] * len(rows)
        self.failed: dict[int, list[tuple[int, bytes]]] = {}
        """Failures of an item, with their launch; by the item's offset in the window."""
        self.errors: dict[int, ErrorInfo] = {}
        """Of the items that are quarantined."""

    @property
    def end(self) -> int:
        """The index behind the last item."""
        return self.first + len(self.rows)


class Tally:
    """Counts what the streams hold for every item of the manifest."""

    def __init__(self, pardoned_before: int, is_whole: Optional[Callable[[bytes], bool]] = None) -> None:
        self._pardoned_before = pardoned_before
        self._is_whole = is_whole
        self.items = self.merged = self.quarantined = self.missing = 0
        self.rows_read = self.spare = self.differing = self.outside = 0
        self.missing_examples: list[str] = []
        self.causes: dict[str, Cause] = {}

    def consume(self, lines: Iterator[bytes], streams: Sequence[Stream], output: Output) -> None:
        """One pass over the manifest's lines and the streams together."""
        while rows := list(islice(lines, WINDOW)):
            window = _Window(self.items, rows)
            for stream in streams:
                for block in stream.take(window.end):
                    self._sort_in(window, stream.launch, block)
            if self._is_whole is not None:
                self._leave_out_broken(window, self._is_whole)
            self._judge(window)
            self._count(window)
            _write(window, output)
        for stream in streams:
            for _, found in stream.take(float("inf")):
                self.rows_read += len(found)
                self.outside += len(found)

    def _sort_in(self, window: _Window, launch: int, block: Block) -> None:
        places, rows = block
        first, results = window.first, window.results
        _verify(window, places[0], rows[0])
        self.rows_read += len(rows)
        for place, row, result in zip(places, rows, rawrows.results(rows)):
            offset = place - first
            if result is None:
                window.failed.setdefault(offset, []).append((launch, row))
            elif results[offset] is None:
                results[offset] = result
            else:
                self.spare += 1
                self.differing += results[offset] != result

    def _leave_out_broken(self, window: _Window, is_whole: Callable[[bytes], bool]) -> None:
        """Results whose file is gone or changed are none; their items are missing."""
        for offset, result in enumerate(window.results):
            if result is not None and not is_whole(result):
                window.results[offset] = None
                self.spare += 1

    def _judge(self, window: _Window) -> None:
        """Which failures quarantine their item. Strikes from before a pardon are void."""
        for offset, failed in window.failed.items():
            self.spare += len(failed)
            if window.results[offset] is not None:
                continue
            counted = [parts.decoded(_SOME_PART, row) for launch, row in failed if launch >= self._pardoned_before]
            error = ledger.quarantine_cause(counted)
            if error is not None:
                self.spare -= 1
                window.errors[offset] = ErrorInfo(error.type, error.message, error.signature)
                self._blame(window, offset, error)

    def _blame(self, window: _Window, offset: int, error: parts.Error) -> None:
        cause = self.causes.get(error.signature)
        if cause is None:
            example = manifest.parse(window.first + offset, window.rows[offset]).audio_filepath
            self.causes[error.signature] = Cause(error.signature, 1, example, error.message)
        else:
            cause.count += 1

    def _count(self, window: _Window) -> None:
        missing = window.results.count(None) - len(window.errors)
        self.items += len(window.rows)
        self.merged += len(window.rows) - missing - len(window.errors)
        self.quarantined += len(window.errors)
        self.missing += missing
        if missing and len(self.missing_examples) < LISTED:
            lacking = (n for n, result in enumerate(window.results) if result is None and n not in window.errors)
            for offset in islice(lacking, LISTED - len(self.missing_examples)):
                self.missing_examples.append(manifest.parse(offset, window.rows[offset]).audio_filepath)


_SOME_PART = Path("some part")


def _verify(window: _Window, place: int, row: bytes) -> None:
    """Compare the keys of item and row. A sample of each block is enough to see a shift, and costs nothing."""
    (key,) = rawrows.keys([row])
    if place < window.first or manifest.parse(place, window.rows[place - window.first]).key.encode() != key:
        raise RowMismatch(f"a row of another item stands at item {place + 1}")


def _write(window: _Window, output: Output) -> None:
    if isinstance(output, RowsOutput):
        output.write_rows(window.rows, window.results)
        return
    for offset, (row, result) in enumerate(zip(window.rows, window.results)):
        output.write(manifest.parse(window.first + offset, row), result, window.errors.get(offset))
