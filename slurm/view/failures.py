"""Failed items of a run, grouped by cause, with an example of each. Only parts that hold failures are read."""

from __future__ import annotations

from pathlib import Path
from typing import Iterable, Iterator, NamedTuple, Optional, Sequence

import msgspec

from pipelines.core import launches, ledger, manifest, parts
from pipelines.core.errors import StorageError
from pipelines.core.manifest import Item
from pipelines.core.parts import Error, Row
from pipelines.core.run import Run
from slurm.view import advice
from slurm.view.headers import PartFile

MOST_ROWS = 20_000
MOST_BYTES = 512 << 20
"""Reading stops at so many failures or bytes, newest parts first, and says so: `status` has to answer at once."""
EXAMPLES = 3
MOST_ITEMS = 50_000
"""Failed items that are told apart; of further ones only the tries are counted."""
MOST_CHARACTERS = 500
"""Of a message."""
MOST_CAUSES = 12
"""Causes whose examples are looked up."""

_MARK = b'"status":"failed"'
_MARK_WITHIN = 100
"""A row begins with its index, key and status, so its status stands within so many bytes."""
_decode = msgspec.json.Decoder(Row).decode


class Example(NamedTuple):
    """One failed item and where its last try was. `place`: its index; `path`: empty until looked up."""

    launch: int
    task: int
    place: int
    path: str


class Cause(NamedTuple):
    """Items whose last failure has one signature. `quarantined` of them are given up; the others get another try."""

    signature: str
    kind: str
    message: str
    items: int
    quarantined: int
    tries: int
    examples: list[Example]

    @property
    def advice(self) -> str:
        """What to do about it."""
        return advice.what_to_do(self.signature, self.message, self.kind)


class Failures(NamedTuple):
    """All causes, most frequent first. `complete`: whether every failure was read."""

    causes: list[Cause]
    complete: bool

    @property
    def quarantined(self) -> int:
        """Items given up."""
        return sum(cause.quarantined for cause in self.causes)

    @property
    def items(self) -> int:
        """Items that failed at least once."""
        return sum(cause.items for cause in self.causes)


class _Failed:
    """What is known of one failed item."""

    __slots__ = ("error", "last", "losses", "strikes")

    def __init__(self) -> None:
        self.strikes = self.losses = 0
        self.error: Optional[Error] = None
        self.last = Example(0, 0, 0, "")


class Blame:
    """Groups failures as they are met."""

    def __init__(self) -> None:
        self._items: dict[int, _Failed] = {}
        self._errors: dict[str, Error] = {}
        self.beyond = 0
        """Tries of items that are not told apart."""

    def add(self, launch: int, task: int, row: Row) -> None:
        """Take a failed row into account."""
        if row.error is None:
            return
        key = int(row.key, 16)
        item = self._items.get(key)
        if item is None:
            if len(self._items) >= MOST_ITEMS:
                self.beyond += 1
                return
            item = self._items[key] = _Failed()
        if row.error.kind == parts.LOST:
            item.losses += 1
        else:
            item.strikes += 1
        item.error = self._errors.setdefault(row.error.signature, _short(row.error))
        item.last = Example(launch, task, row.index, "")

    def forgive(self, key: str) -> None:
        """The item was done after all."""
        if self._items:
            self._items.pop(int(key, 16), None)

    def causes(self) -> list[Cause]:
        """The groups, most frequent first."""
        groups: dict[str, list[_Failed]] = {}
        for item in self._items.values():
            if item.error is not None:
                groups.setdefault(item.error.signature, []).append(item)
        causes = [_cause(signature, items) for signature, items in groups.items()]
        return sorted(causes, key=lambda cause: (-cause.quarantined, -cause.items, cause.signature))


def _short(error: Error) -> Error:
    return msgspec.structs.replace(error, message=error.message[:MOST_CHARACTERS])


def _cause(signature: str, items: list[_Failed]) -> Cause:
    given_up = [item for item in items if ledger.is_quarantined(item.strikes, item.losses)]
    examples = sorted({item.last for item in given_up or items})[:EXAMPLES]
    error = items[0].error or Error("", "", signature)
    tries = sum(item.strikes + item.losses for item in items)
    return Cause(signature, error.kind, error.message, len(items), len(given_up), tries, examples)


class Reader:
    """Collects a run's failures, and remembers what it read of each part while a run is watched."""

    def __init__(self) -> None:
        self._known: dict[Path, list[Row]] = {}
        self._paths: dict[tuple[int, int, int], str] = {}

    def collect(self, run: Run, files: Iterable[PartFile]) -> Failures:
        """The failures since the last pardon, with examples."""
        pardoned = run.pardoned_before()
        blame, complete, rows, size = Blame(), True, 0, 0
        chosen = []
        for file in sorted(files, key=lambda file: -file.header.published):
            path, header = file
            if not header.failed or header.launch < pardoned:
                continue
            if rows >= MOST_ROWS or size >= MOST_BYTES:
                complete = False
                break
            if path not in self._known:
                size += path.stat().st_size
                self._known[path] = list(_failed_rows(path))
            rows += len(self._known[path])
            chosen.append(file)
        for path, header in reversed(chosen):
            for row in self._known[path]:
                blame.add(header.launch, header.task, row)
        return Failures(self._with_paths(run, blame.causes()), complete)

    def _with_paths(self, run: Run, causes: list[Cause]) -> list[Cause]:
        wanted = [example for cause in causes[:MOST_CAUSES] for example in cause.examples]
        missing = [example for example in wanted if example[:3] not in self._paths]
        self._paths.update(look_up(run, missing))
        return [
            cause._replace(examples=[e._replace(path=self._paths.get(e[:3], "")) for e in cause.examples])
            for cause in causes
        ]


def _failed_rows(path: Path) -> Iterator[Row]:
    try:
        with path.open("rb", buffering=1 << 18) as file:
            for line in file:
                if line.find(_MARK, 0, _MARK_WITHIN) >= 0:
                    row = _decode(line)
                    if row.status == parts.FAILED:
                        yield row
    except (OSError, msgspec.MsgspecError):
        return  # the merge names damaged parts


def with_examples(run: Run, causes: Sequence[Cause]) -> list[Cause]:
    """The causes, with the paths of the examples of the first `MOST_CAUSES`."""
    found = look_up(run, [example for cause in causes[:MOST_CAUSES] for example in cause.examples])
    return [
        cause._replace(examples=[e._replace(path=found.get(e[:3], "")) for e in cause.examples]) for cause in causes
    ]


def look_up(run: Run, examples: Iterable[Example]) -> dict[tuple[int, int, int], str]:
    """(launch, task, index) → path of the recording, from the launches' deals; what is not found is left out."""
    wanted: dict[tuple[int, int], set[int]] = {}
    for example in examples:
        wanted.setdefault((example.launch, example.task), set()).add(example.place)
    found = {}
    for (launch, task), indexes in wanted.items():
        for item in _dealt(run, launch, task, indexes):
            found[launch, task, item.index] = item.audio_filepath
    return found


def _dealt(run: Run, launch: int, task: int, indexes: set[int]) -> Iterator[Item]:
    """Items of a deal, found by their index among the bytes: parsing every row would take minutes for large deals."""
    left = set(indexes)
    try:
        with launches.deal_path(run.folder, launch).open("rb") as file:
            for offset, length in run.deal(launch).shares[task].extents:
                file.seek(offset)
                block = b"\n" + file.read(length)
                for index in sorted(left):
                    start = block.find(b"\n%d\t" % index)
                    if start >= 0:
                        line = block[start + 1 : block.index(b"\n", start + 1)]
                        yield manifest.parse(index, line.split(b"\t", 1)[1])
                        left.discard(index)
                if not left:
                    return
    except (OSError, StorageError, IndexError, ValueError):
        return
