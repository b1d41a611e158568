"""Launches: one submission of a run's missing items, and the deal that says which task got which.

The deal is one file: the rows of every task in blocks, then a line of JSON that says where each task's blocks are,
then 20 digits: where that line starts. A launch therefore holds its own copy of what it works on; a manifest that
changes meanwhile cannot shift items between tasks.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Iterable, Iterator, Optional

import msgspec

from pipelines.core import paths, store
from pipelines.core.errors import StorageError
from pipelines.core.manifest import Identity, Item, parse
from pipelines.core.shard import imbalance
from pipelines.core.spool import Spool

MISSING = "missing"
"""Only what was missing is dealt, over all tasks: the launcher's way."""
POSITION = "position"
"""Item i belongs to task i mod N (or its balanced task) whatever is done: `--array=5` means the same for ever."""

_NAME = re.compile(r"launch-(\d{3,})\.json")
_TAIL = 20


class LaunchRecord(msgspec.Struct, frozen=True):
    """`launch-NNN.json`. `job` is the array job of a plain sbatch launch, `submitted_tasks` how many tasks it has.

    `suspects`: keys of items that earlier launches had in flight when they died; they are tried alone.
    `done_before`, `quarantined_before`: items of the manifest that were so when it was dealt.
    """

    number: int
    tasks: int
    sharding: str
    deal: str
    cluster: str
    items: int
    manifest: Identity
    imbalance: float
    created: str
    argv: list[str]
    job: Optional[str] = None
    submitted_tasks: Optional[int] = None
    pardon: bool = False
    sweep_round: int = 0
    suspects: list[str] = []
    done_before: Optional[int] = None
    quarantined_before: Optional[int] = None
    format: int = 1


class Share(msgspec.Struct, frozen=True):
    """One task's share of a deal: number of items, and its extents in the file.

    `audio_seconds`: of all of them; 0 where that of any is unknown.
    """

    items: int
    audio_seconds: float
    extents: list[tuple[int, int]]


class _Table(msgspec.Struct):
    shares: list[Share]


def write_deal(path: Path, assignments: Iterable[tuple[int, Item]], tasks: int) -> list[Share]:
    """Write (task, item) pairs to `path`, private until a number is claimed. Memory does not grow with them."""
    counts, seconds = [0] * tasks, [0.0] * tasks
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb+", buffering=1 << 20) as file:
        spool = Spool(file, tasks, path=path)
        for task, item in assignments:
            counts[task] += 1
            seconds[task] += math.nan if item.duration is None else item.duration
            spool.add(task, b"%d\t%s\n" % (item.index, item.row))
        end = spool.finish()
        shares = [
            Share(count, 0.0 if math.isnan(total) else round(total, 6), extents)
            for count, total, extents in zip(counts, seconds, spool.extents)
        ]
        file.write(msgspec.json.encode(_Table(shares)) + b"\n" + b"%020d" % end)
        file.flush()
        os.fsync(file.fileno())
    return shares


def skew(shares: Iterable[Share]) -> float:
    """The imbalance of a deal in seconds of audio (in items, where durations are not known)."""
    every = list(shares)
    known = all(share.audio_seconds > 0 for share in every if share.items)
    return imbalance(share.audio_seconds if known else float(share.items) for share in every)


class Deal:
    """Reads a deal."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(size - _TAIL)
                start = int(file.read(_TAIL))
                file.seek(start)
                table = file.read(size - _TAIL - start)
            self.shares = msgspec.json.decode(table, type=_Table).shares
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise _damaged(path, error) from None

    def items(self, task: int) -> Iterator[Item]:
        """The items of a task, in manifest order."""
        try:
            with self._path.open("rb") as file:
                for offset, length in self.shares[task].extents:
                    file.seek(offset)
                    for line in file.read(length).split(b"\n")[:-1]:
                        index, row = line.split(b"\t", 1)
                        yield parse(int(index), row)
        except (OSError, ValueError) as error:
            raise _damaged(self._path, error) from None


def _damaged(path: Path, error: Exception) -> StorageError:
    return StorageError(
        f"The deal {path} cannot be read ({error}): the file system lost or changed it. Give the command again: a new "
        "launch deals anew; published results stay."
    )


def record_path(folder: Path, number: int) -> Path:
    """Where a launch's record lies."""
    return folder / f"{paths.launch_name(number)}.json"


def deal_path(folder: Path, number: int) -> Path:
    """Where a launch's deal lies."""
    return folder / f"{paths.launch_name(number)}.deal"


def jobs_path(folder: Path, number: int) -> Path:
    """Where the launcher notes the scheduler's job ids of a launch."""
    return folder / f"{paths.launch_name(number)}.jobs.json"


def numbers(folder: Path) -> list[int]:
    """The numbers of the launches of a run, ascending."""
    try:
        return sorted(int(match[1]) for entry in folder.iterdir() if (match := _NAME.fullmatch(entry.name)))
    except FileNotFoundError:
        return []


def read_record(folder: Path, number: int) -> LaunchRecord:
    """A launch's record."""
    path = record_path(folder, number)
    try:
        return msgspec.json.decode(path.read_bytes(), type=LaunchRecord)
    except msgspec.MsgspecError as error:
        raise StorageError(
            f"The launch record {path} cannot be read ({error}); it was changed by hand or damaged. Move "
            "it away and give the command again; published results stay."
        ) from None


def claim_number(folder: Path, private_deal: Path) -> int:
    """Give a finished private deal the first free launch number, and return it."""
    number = max(numbers(folder), default=-1) + 1
    while not store.claim(private_deal, deal_path(folder, number)):
        number += 1
    return number
