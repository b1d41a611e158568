"""Batches of sequences of like lengths, another order every epoch: a function of the lengths, the seed and the epoch.

Everything is arrays: 33 bytes a sequence, so that a billion units fit beside the model.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

import numpy as np
import numpy.typing as npt
import torch

from pipelines.language.models import Batch
from pipelines.lm.data import Corpus, Ints

_WINDOW = 100
"""Batches whose sequences are sorted by length together."""


class Pieces(NamedTuple):
    """Stretches of items' sequences: units `first` to `last` of `item`; `ends`: its end is predicted too."""

    item: Ints
    first: Ints
    last: Ints
    ends: npt.NDArray[np.bool_]

    @property
    def lengths(self) -> Ints:
        """Tokens that are predicted, of each."""
        return self.last - self.first + self.ends


def pieces(corpus: Corpus, items: Ints, longest: int) -> Pieces:
    """The items' sequences, long ones in stretches of `longest` units."""
    lengths = corpus.lengths[items]
    counts = -(-lengths // longest)
    item, whole = np.repeat(items, counts), np.repeat(lengths, counts)
    before = np.repeat(np.cumsum(counts) - counts, counts)
    first = (np.arange(len(item)) - before) * longest
    last = np.minimum(whole, first + longest)
    return Pieces(item, first, last, last == whole)


class Batches(NamedTuple):
    """Which sequences go together. `order`: all their numbers; `bounds` (batches, 2): where in it each batch is."""

    order: Ints
    bounds: Ints

    @property
    def total(self) -> int:
        """How many batches there are."""
        return len(self.bounds)

    def of(self, number: int) -> Ints:
        """The sequences of a batch, the longest first."""
        first, last = self.bounds[number]
        return self.order[first:last]


def batches(lengths: Ints, tokens: int, sequences: int, seed: Optional[tuple[int, int]]) -> Batches:
    """At most `tokens` padded tokens (but one sequence) and `sequences` a batch.

    `seed`: of the order (seed and epoch); None: by length. Sorted within windows only, so that like lengths go
    together and yet other ones every epoch.
    """
    total = len(lengths)
    if seed is None:
        order = np.argsort(-lengths, kind="stable")
        return Batches(order, _cut(order, lengths, tokens, sequences, total))
    die = np.random.default_rng(seed)
    order = die.permutation(total)
    usual = min(sequences, max(1, tokens // max(1, int(lengths.mean())))) if total else 1
    window = _WINDOW * usual
    for start in range(0, total, window):
        part = order[start : start + window]
        order[start : start + window] = part[np.argsort(-lengths[part], kind="stable")]
    bounds = _cut(order, lengths, tokens, sequences, window)
    return Batches(order, bounds[die.permutation(len(bounds))])


def _cut(order: Ints, lengths: Ints, tokens: int, sequences: int, window: int) -> Ints:
    """First and last (excluded) place of each batch, (batches, 2); within a window lengths only descend."""
    found = []
    start = 0
    while start < len(order):
        end = min(len(order), (start // window + 1) * window)
        most = min(sequences, max(1, tokens // int(lengths[order[start]])))
        found.append((start, min(end, start + most)))
        start = found[-1][1]
    return np.array(found, np.int64).reshape(-1, 2)


def collate(corpus: Corpus, chosen: Pieces, numbers: Ints) -> Batch:
    """Some of the pieces as the models read them.

    The boundary stands before and after a sequence; before a later stretch of it, the unit that precedes that.
    """
    lengths = chosen.lengths[numbers]
    longest, boundary = int(lengths.max()), corpus.vocabulary_size
    tokens = np.zeros((len(numbers), longest), np.int64)
    targets = np.full((len(numbers), longest), boundary, np.int64)
    for row, number in enumerate(numbers.tolist()):
        first, last = int(chosen.first[number]), int(chosen.last[number])
        sequence = corpus.sequence(int(chosen.item[number]))
        targets[row, : last - first] = sequence[first:last]
        tokens[row, 0] = sequence[first - 1] if first else boundary
        tokens[row, 1 : lengths[row]] = targets[row, : lengths[row] - 1]
    places = np.flatnonzero(np.arange(longest) < lengths[:, None])
    return Batch(torch.from_numpy(tokens), torch.from_numpy(places), torch.from_numpy(targets.reshape(-1)[places]))
