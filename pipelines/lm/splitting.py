"""Training, validation and test without a speaker (or recording) in two of them, the same when the corpus grows."""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np

from pipelines.core.errors import ManifestError
from pipelines.lm.data import Corpus, Hashes, Ints

log = logging.getLogger(__name__)

_SKEW = 2.0
"""A validation this many times larger or smaller than asked for is told."""


class Split(NamedTuple):
    """Items of each part, ascending."""

    train: Ints
    valid: Ints
    test: Ints


def split(corpus: Corpus, train_ratio: float, test_ratio: float) -> Split:
    """Each group to the part that its own hash says: no other group matters, so what is added later moves nothing.

    `test_ratio` of the groups are for the test; of the others, `train_ratio` for training, the rest for validation.
    Where so few groups leave validation (or test) without any, it gets the one with the lowest hash. Raises
    ManifestError where that leaves nothing to train on.
    """
    valid_ratio = (1 - train_ratio) * (1 - test_ratio)
    parts = _parts(corpus.groups, valid_ratio, test_ratio)
    found = Split(*(np.flatnonzero(parts == number) for number in range(3)))
    groups = len(np.unique(corpus.groups))
    if not len(found.train):
        raise ManifestError(
            f"The {len(corpus):,} items are of {groups} group(s) (--split-by), too few for training"
            f"{', validation and test' if test_ratio else ' and validation'} without a group in two of them. Add "
            "recordings of others, or split by recording (--split-by file)."
        )
    _warn_of_skew(corpus, found, valid_ratio, groups)
    return found


def _parts(groups: Hashes, valid_ratio: float, test_ratio: float) -> Ints:
    """0 (training), 1 (validation) or 2 (test) for each item, by its group's hash (uniform over 64 bits)."""
    place = groups / 2.0**64
    parts = np.where(place < valid_ratio, 1, np.where(place >= 1 - test_ratio, 2, 0)).astype(np.int64)
    for number, ratio in ((1, valid_ratio), (2, test_ratio)):
        if ratio > 0 and not (parts == number).any() and (parts == 0).any():
            parts[groups == groups[parts == 0].min()] = number
    return parts


def _warn_of_skew(corpus: Corpus, found: Split, wanted: float, groups: int) -> None:
    share = float(corpus.lengths[found.valid].sum() / corpus.lengths.sum())
    if not wanted / _SKEW <= share <= wanted * _SKEW:
        log.warning(
            "Validation has %.1f %% of the units, and %.1f %% were asked for: its groups are few (of %d) or of very "
            "different sizes. Another --split-seed deals them otherwise.",
            100 * share,
            100 * wanted,
            groups,
        )
