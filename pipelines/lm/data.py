"""The sequences of units that a training reads: memory-mapped, verified before use, 32 bytes of memory an item."""

from __future__ import annotations

import hashlib
import math
from array import array
from bisect import bisect_right
from pathlib import Path
from typing import Any, Iterator, NamedTuple, Optional

import numpy as np
import numpy.typing as npt

from pipelines.core.errors import LISTED, ManifestError, listed
from pipelines.core.manifest import Item
from pipelines.language.files import UnitsOf
from pipelines.lm.rows import items
from pipelines.units.packed import PackedUnits, Units, shard_name

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

_BLOCK = 1 << 22
"""Units that are looked at at once when they are verified."""
_ELSEWHERE = -1
"""The row of an item whose line does not say in which row of these units it is."""


class Source(NamedTuple):
    """Where the units of a training come from, and how they are read.

    `group`: the field of a row that says whose it is; None: the recording. `salt`: the seed of the split.
    `skip_missing`: leave items without units out instead of refusing them.
    """

    manifest: Path
    folder: Path
    group: Optional[str]
    salt: int
    raw: bool
    skip_missing: bool = False


class Corpus:
    """The items of a manifest that have units, all in one folder of packed units.

    `lengths`, `seconds`, `groups`: (items,); a group is the hash of its name and the split's seed. Sequences stay on
    the disk; `content`: 16 hex digits over all units, and over their durations where those count. Raises ManifestError
    for items without units, and for units outside the vocabulary.
    """

    def __init__(self, source: Source) -> None:
        self.units = PackedUnits(source.folder)
        described = self.units.description
        self.vocabulary_size = described.vocabulary_size
        joined = described.deduplicated or described.parameters.get("deduplicate", False)  # or without durations
        self.raw = source.raw or not joined
        self._repeats = source.raw and described.deduplicated
        rows, seconds, groups = _read(source, len(self.units))
        index = np.load(source.folder / "index.npy", mmap_mode="r")
        known = rows >= 0
        lengths = np.zeros(len(rows), np.int64)
        lengths[known] = index[rows[known], 2]
        good = _refuse_without_units(source, rows, lengths)
        self.rows, self.seconds, self.groups, self.lengths = rows[good], seconds[good], groups[good], lengths[good]
        self.left_out = len(rows) - len(self.rows)
        self.content = self._verified(index)
        if self._repeats:
            self.lengths = np.fromiter((int(self.units.durations(row).sum()) for row in self.rows), np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def sequence(self, number: int) -> Units:
        """The units of an item. Shape (units,), uint16."""
        row = int(self.rows[number])
        return self.units.frames(row) if self._repeats else self.units.units(row)

    def described(self) -> UnitsOf:
        """What the units are, for the files of models."""
        its = self.units.description
        return UnitsOf(its.name, its.vocabulary_size, its.rate, self.raw, its.codebook, its.codebook_digest)

    def digest(self) -> str:
        """16 hex digits over which items there are and whose they are, how long they are and how they are read."""
        digest = hashlib.sha256(f"{self.units.description.index_sha256} {self.raw} {self.vocabulary_size}".encode())
        for part in (self.rows, self.groups):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()[:16]

    def _verified(self, index: Any) -> str:
        """Refuse units outside of the vocabulary, by name, before hours are spent on the others; digest all."""
        folder, size, content = self.units.folder, self.vocabulary_size, hashlib.sha256()
        for shard in range(self.units.description.shards):
            start = 0
            last = index[bisect_right(index[:, 0], shard) - 1]  # shards follow each other
            needed = int(last[1] + last[2]) if last[0] == shard else 0
            for block in _blocks(folder / shard_name("units", shard), needed):
                if int(block.max()) >= size:
                    place = start + int(np.argmax(block >= size))
                    rows = np.flatnonzero((index[:, 0] == shard) & (index[:, 1] <= place))
                    raise _foreign(folder, int(rows[-1]), int(block[place - start]), size)
                start += len(block)
                content.update(block.data)
            if self._repeats:
                for block in _blocks(folder / shard_name("durations", shard), needed):
                    content.update(block.data)
        return content.hexdigest()[:16]


def _blocks(path: Path, needed: int) -> Iterator[Units]:
    """The units of a shard, read and not mapped: what is looked at once should not count as this process's memory.

    Raises ManifestError where it does not hold the `needed` units that the index speaks of, one uint16 each.
    """
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, kind = np.lib.format.read_array_header_1_0(file)
            whole = path.stat().st_size - file.tell() >= kind.itemsize * math.prod(shape) and shape >= (needed,)
            if kind != np.dtype("<u2") or len(shape) != 1 or not whole:
                raise _damaged(path, f"it holds {kind} of shape {shape}{'' if whole else ', and not all of them'}")
            while data := file.read(2 * _BLOCK):
                yield np.frombuffer(data, "<u2")
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from None


def _damaged(path: Path, what: str) -> ManifestError:
    return ManifestError(
        f"{path} is no shard of packed units, or not whole: {what}. Units are uint16 in one dimension, as many as "
        "index.npy speaks of. It is published whole, so it was changed, cut off in a copy, or made by something else: "
        "copy it anew, or encode into another DATASET."
    )


def _foreign(folder: Path, row: int, unit: int, size: int) -> ManifestError:
    name = next((item.audio_filepath for item in items(folder / "manifest.json") if item.index == row), "?")
    return ManifestError(
        f"Row {row} of the units in {folder} ({name}) has the unit {unit}, and a vocabulary of {size:,} has 0 to "
        f"{size - 1}: the units are of another codebook than units.json says, special tokens are among them, or "
        "--vocabulary-size is too small. Encode the recordings again, or give the right size."
    )


def _read(source: Source, total: int) -> tuple[Ints, npt.NDArray[np.float64], Hashes]:
    """Row (or -1), seconds and group of every item of the manifest, in its order."""
    rows, seconds, groups, keys = array("q"), array("d"), array("Q"), array("Q")
    for item in items(source.manifest):
        fields = item.fields()
        row = fields.get("units_row")
        here = fields.get("units_filepath") == str(source.folder)
        rows.append(row if here and isinstance(row, int) and 0 <= row < total else _ELSEWHERE)
        seconds.append(item.duration or 0.0)
        groups.append(_hash(source.salt, _group(fields, source, item.index)))
        keys.append(_key(item))
    found = np.array(rows, np.int64)
    if (found == _ELSEWHERE).any():
        _look_up(found, np.array(keys, np.uint64), source.folder)
    return found, np.array(seconds), np.array(groups, np.uint64)


def _key(item: Item) -> int:
    return int(item.key, 16)


def _look_up(rows: Ints, keys: Hashes, folder: Path) -> None:
    """Find items by their keys in the units' own manifest, where their line names no row or other units."""
    listing = folder / "manifest.json"
    if not listing.exists():
        return
    its = np.fromiter(map(_key, items(listing)), np.uint64)
    order = np.argsort(its, kind="stable")
    wanted = np.flatnonzero(rows == _ELSEWHERE)
    places = np.minimum(np.searchsorted(its, keys[wanted], sorter=order), len(its) - 1) if len(its) else wanted
    for item, place in zip(wanted.tolist(), places.tolist()):
        if len(its) and its[order[place]] == keys[item]:
            rows[item] = order[place]


def _hash(salt: int, name: str) -> int:
    digest = hashlib.blake2b(f"{salt}\0{name}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _group(fields: dict[str, Any], source: Source, number: int) -> str:
    if source.group is None:
        return str(fields["audio_filepath"])
    value = fields.get(source.group)
    if value is None:
        raise ManifestError(
            f"Item {number + 1} of {source.manifest} has no field {source.group!r}, which --split-by asks for: "
            "without it nobody knows whose speech it is, and training could hear the speakers it is judged on. Its "
            f"fields are {', '.join(sorted(fields))}. Add the field to every row, or split by recording (--split-by "
            "file)."
        )
    return str(value)


def _refuse_without_units(source: Source, rows: Ints, lengths: Ints) -> Ints:
    """The items that can be used. Raises ManifestError where there are others, unless they are to be skipped."""
    good = np.flatnonzero((rows >= 0) & (lengths > 0))
    if not len(good):
        raise ManifestError(
            f"No item of {source.manifest} has units in {source.folder}. `./voxarray encode {source.manifest} "
            "DATASET` makes them and writes into the manifest where they are; or name the folder that has them: "
            "`./voxarray lm MANIFEST UNITS`."
        )
    for what, bad, cause in (
        ("have no units", np.flatnonzero(rows < 0), "They failed to encode, or came later"),
        ("are empty", np.flatnonzero((rows >= 0) & (lengths == 0)), "Nothing can be learnt from them"),
    ):
        if len(bad) and not source.skip_missing:
            names = (f"item {number + 1} ({name})" for number, name in _named(source.manifest, bad[:LISTED]))
            raise ManifestError(
                f"{len(bad):,} of {len(rows):,} items of {source.manifest} {what} in {source.folder}: "
                f"{listed(names, len(bad))}. {cause}. `./voxarray encode` does what is missing; or leave them out "
                "with --skip-missing."
            )
    return good


def _named(path: Path, numbers: Ints) -> Iterator[tuple[int, str]]:
    wanted = set(numbers.tolist())
    for item in items(path):
        if item.index in wanted:
            yield item.index, item.audio_filepath
