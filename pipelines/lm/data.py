"""Sequences of units for language models: memory-mapped, split without leaks, batched by length."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Iterator, NamedTuple, Optional, Sequence

import numpy as np
import numpy.typing as npt

from pipelines.core import manifest
from pipelines.core.errors import ManifestError, listed
from pipelines.units.packed import PackedUnits, Units

Ints = npt.NDArray[np.int64]

TRAIN, VALID, TEST = "train", "valid", "test"


class Row(NamedTuple):
    """One item: its key, its row in the packed units, its group (speaker or file), its seconds."""

    key: str
    row: int
    group: str
    seconds: float


class Corpus:
    """The items of a manifest that have units, all in one folder of packed units.

    `sequence(i)` is read from the disk when it is asked for: memory holds 40 bytes an item. Raises ManifestError for
    rows without units, and units outside the vocabulary.
    """

    def __init__(self, path: Path, folder: Path, group_field: Optional[str], raw: bool) -> None:
        self.units = PackedUnits(folder)
        self.vocabulary_size = self.units.description.vocabulary_size
        self._raw = raw and self.units.description.deduplicated
        rows, groups, seconds, bad = [], [], [], []
        for item in manifest.items(path):
            fields = item.fields()
            row = fields.get("units_row")
            if not isinstance(row, int) or not 0 <= row < len(self.units):
                bad.append(f"item {item.index + 1}: {item.audio_filepath}")
                continue
            rows.append(row)
            groups.append(_group(item, fields, group_field, path))
            seconds.append(item.duration or 0.0)
        _refuse_without_units(path, folder, bad, len(rows))
        self.rows: Ints = np.array(rows, np.int64)
        self.seconds = np.array(seconds, np.float64)
        names, self.groups = np.unique(np.array(groups), return_inverse=True)
        self.group_names: list[str] = names.tolist()
        index = np.load(folder / "index.npy", mmap_mode="r")
        self.lengths: Ints = np.asarray(index[self.rows, 2])
        if self._raw:
            self.lengths = np.array([int(self.units.durations(row).sum()) for row in rows], np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def sequence(self, number: int) -> Units:
        """The units of an item. Shape (units,), uint16."""
        row = int(self.rows[number])
        return self.units.frames(row) if self._raw else self.units.units(row)


def _group(item: manifest.Item, fields: dict[str, Any], field: Optional[str], path: Path) -> str:
    if field is None:
        return item.audio_filepath
    value = fields.get(field)
    if value is None:
        raise ManifestError(
            f"Item {item.index + 1} of {path} has no field {field!r}, which --split-by asks for: without it nobody knows "
            f"whose speech it is, and training could hear the test's speakers. Its fields are "
            f"{', '.join(sorted(fields))}. Add the field to every row, or split by recording (--split-by file)."
        )
    return str(value)


def _refuse_without_units(path: Path, folder: Path, bad: list[str], good: int) -> None:
    if not bad:
        return
    if not good:
        raise ManifestError(
            f"No row of {path} says which units it has (`units_row`) in {folder}. `./voxarray encode {path} DATASET` "
            "makes the units and writes that into the manifest."
        )
    raise ManifestError(
        f"{len(bad):,} items of {path} have no units in {folder}: {listed(bad, len(bad))}. They failed to encode, or came "
        f"later. `./voxarray encode` does what is missing; or take these rows out."
    )


class Split(NamedTuple):
    """Items of each part, ascending."""

    train: Ints
    valid: Ints
    test: Ints


def split(corpus: Corpus, train_ratio: float, test_ratio: float, seed: int) -> Split:
    """Whole groups to parts, in the order of a hash, until each part has its share of the units.

    A group's place does not depend on the others, so that a corpus that grows keeps most of its split.
    """
    weights = np.bincount(corpus.groups, corpus.lengths, len(corpus.group_names))
    digests = [
        hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogatepass")).digest() for name in corpus.group_names
    ]
    order = np.array(sorted(range(len(digests)), key=digests.__getitem__), np.int64)
    before = np.cumsum(weights[order]) - weights[order]
    total = max(1.0, float(weights.sum()))
    valid_ratio = 1 - train_ratio - test_ratio
    part_of = np.zeros(len(order), np.int64)
    # Validation comes first, so that it is never empty however few the groups are.
    part_of[order] = np.where(
        before < valid_ratio * total, 1, np.where(before < (valid_ratio + test_ratio) * total, 2, 0)
    )
    parts = part_of[corpus.groups]
    return Split(*(np.flatnonzero(parts == number) for number in (0, 1, 2)))


class Piece(NamedTuple):
    """A stretch of an item's sequence: what precedes it (at first SOS) and units in, units and (at the end) EOS out."""

    item: int
    first: int
    last: int
    ends: bool

    @property
    def length(self) -> int:
        """Tokens that are predicted."""
        return self.last - self.first + self.ends


def pieces(corpus: Corpus, items: Ints, longest: int) -> list[Piece]:
    """The items' sequences, long ones in stretches of `longest` units; those of items without units are left out."""
    found = []
    for item in items.tolist():
        length = int(corpus.lengths[item])
        for first in range(0, length, longest):
            last = min(length, first + longest)
            found.append(Piece(item, first, last, last == length))
    return found


def batches(lengths: Ints, tokens: int, sequences: Optional[int], seed: Optional[tuple[int, int]]) -> list[list[int]]:
    """Which sequences go together: like lengths, at most `tokens` padded tokens (and `sequences`) a batch.

    `seed`: of the order (a pair: seed and epoch); None: by length, for evaluation.
    """
    if seed is None:
        order = np.argsort(-lengths, kind="stable")
        return list(_cut(order, lengths, tokens, sequences))
    die = np.random.default_rng(seed)
    order = die.permutation(len(lengths))
    # Sorted within windows only: like lengths go together, and yet other ones every time.
    window = max(1, 100 * (sequences or max(1, tokens // max(1, int(lengths.mean() if len(lengths) else 1)))))
    parts = [order[start : start + window] for start in range(0, len(order), window)]
    sorted_parts = [part[np.argsort(-lengths[part], kind="stable")] for part in parts]
    found = [batch for part in sorted_parts for batch in _cut(part, lengths, tokens, sequences)]
    return [found[place] for place in die.permutation(len(found))]


def _cut(order: Ints, lengths: Ints, tokens: int, sequences: Optional[int]) -> Iterator[list[int]]:
    """Consecutive ones of a descending order, so that the first is the longest of its batch."""
    held: list[int] = []
    for place in order.tolist():
        longest = int(lengths[held[0] if held else place])
        if held and (longest * (len(held) + 1) > tokens or len(held) == sequences):
            yield held
            held = []
        held.append(place)
    if held:
        yield held


def collate(corpus: Corpus, chosen: Sequence[Piece]) -> tuple[Any, Any]:
    """Inputs and targets of some pieces, int64 (batch, longest), padded with 0 and -100."""
    import torch

    longest = max(piece.length for piece in chosen)
    tokens = np.zeros((len(chosen), longest), np.int64)
    targets = np.full((len(chosen), longest), -100, np.int64)
    sos, eos = corpus.vocabulary_size, corpus.vocabulary_size + 1
    for number, piece in enumerate(chosen):
        sequence = corpus.sequence(piece.item)
        units = sequence[piece.first : piece.last].astype(np.int64)
        _refuse_foreign(corpus, piece, units)
        tokens[number, 0] = sequence[piece.first - 1] if piece.first else sos
        tokens[number, 1 : piece.length] = units[: piece.length - 1]
        targets[number, : len(units)] = units
        if piece.ends:
            targets[number, len(units)] = eos
    return torch.from_numpy(tokens), torch.from_numpy(targets)


def _refuse_foreign(corpus: Corpus, piece: Piece, units: Ints) -> None:
    if len(units) and int(units.max()) >= corpus.vocabulary_size:
        raise ManifestError(
            f"Row {int(corpus.rows[piece.item])} of {corpus.units.folder} has the unit {int(units.max())}, and its "
            f"units.json promises {corpus.vocabulary_size}: the files do not belong together. Encode or merge again."
        )
