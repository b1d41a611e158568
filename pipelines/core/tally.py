"""The count behind a merge: one pass over the manifest and the merged stream of rows, every row explained."""

from __future__ import annotations

from itertools import chain
from typing import Iterable, Iterator, Optional

import msgspec

from pipelines.core import ledger, parts, stream
from pipelines.core.errors import LISTED
from pipelines.core.manifest import Item
from pipelines.core.parts import Row
from pipelines.core.pipeline import ErrorInfo, Output


class RowMismatch(Exception):  # noqa: N818 - says what was seen; the merge says what it means
    """A row stands at the index of another item: the manifest was changed, or a part was."""


class Cause(msgspec.Struct):
    """Quarantined items that failed for one reason."""

    signature: str
    count: int
    example: str
    message: str


class Tally:
    """Counts what the merged stream holds for every item of the manifest."""

    def __init__(self) -> None:
        self.items = self.merged = self.quarantined = self.missing = 0
        self.rows_read = self.spare = self.differing = self.outside = 0
        self.missing_examples: list[str] = []
        self.causes: dict[str, Cause] = {}

    def consume(
        self, items: Iterable[Item], rows: Iterator[stream.Entry], output: Output, pardoned_before: int
    ) -> None:
        """One pass over manifest and rows together. `rows` are (index, launch, row), ascending."""
        head = next(rows, None)
        for item in items:
            index = item.index
            done: Optional[Row] = None
            failed: list[Row] = []
            while head is not None and head[0] == index:
                _, launch, row = head
                head = next(rows, None)
                self.rows_read += 1
                if row.key != item.key:
                    raise RowMismatch(item.index)
                if row.status != parts.DONE:
                    # Strikes from before a pardon are void.
                    failed += [row] if launch >= pardoned_before else []
                    self.spare += launch < pardoned_before
                elif done is None:
                    done = row
                else:
                    self.spare += 1
                    self.differing += bytes(done.result) != bytes(row.result)
            self._settle(item, done, failed, output)
        for _ in chain([head] if head else [], rows):
            self.rows_read += 1
            self.outside += 1

    def _settle(self, item: Item, done: Optional[Row], failed: list[Row], output: Output) -> None:
        self.items += 1
        self.spare += len(failed)
        if done is not None:
            self.merged += 1
            output.write(item, bytes(done.result), None)
            return
        error = ledger.quarantine_cause(failed)
        if error is not None:
            self.quarantined += 1
            self.spare -= 1
            self._blame(item, error)
            output.write(item, None, ErrorInfo(error.type, error.message, error.signature))
            return
        self.missing += 1
        if len(self.missing_examples) < LISTED:
            self.missing_examples.append(item.audio_filepath)
        output.write(item, None, None)

    def _blame(self, item: Item, error: parts.Error) -> None:
        cause = self.causes.get(error.signature)
        if cause is None:
            self.causes[error.signature] = Cause(error.signature, 1, item.audio_filepath, error.message)
        else:
            cause.count += 1
