"""k-means on a sample of frames, the same whatever tasks took it, in whatever order, on however many cores.

A frame is in the sample if its hash (of its item's key, its number and the seed) is among the lowest, so any split of
the items gives the same sample, and hashes put it in an order that is as good as random. Fitting starts with k-means++
on the first frames, goes on with Lloyd's iterations on them, then on four times as many, and so on to all (nested
batches, Newling and Fleuret 2016: most iterations are on few frames). Assignments are exact (`codebook`) and sums are
float64 in a fixed order, so threads change nothing.
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import contextmanager
from typing import Iterator, NamedTuple, Optional

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipelines.audio.resample import Float32
from pipelines.core.errors import UsageError
from pipelines.units.codebook import Codebook

log = logging.getLogger(__name__)

Hashes = npt.NDArray[np.uint64]

_FIRST, _FIRST_A_CLUSTER = 20_000, 16
"""Frames that k-means++ chooses from: so many, or so many a cluster if that is more."""
_GROWTH = 4
_TOLERANCE, _LAST_TOLERANCE = 2e-3, 5e-4
"""Iterations end when the inertia falls by less than this share: on some of the frames, on all of them."""
_ROUNDS, _LAST_ROUNDS = 20, 50
_AT_ONCE = 1 << 16


def hashes(key: str, seed: int, count: int) -> Hashes:
    """64 bits for each of the frames 0 … count-1 of an item: SplitMix64 (Steele, Lea, Flood 2014) from its key."""
    start = hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=8).digest()
    state = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state += np.uint64(int.from_bytes(start, "little"))
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Hashes = state ^ (state >> np.uint64(31))
    return mixed


class Reservoir:
    """The `capacity` frames of lowest hash among all that were added. Memory: a quarter more than those."""

    def __init__(self, capacity: int, width: int) -> None:
        room = capacity + max(capacity // 4, 1 << 14)
        self._capacity = capacity
        self._hashes: Hashes = np.empty(room, np.uint64)
        self._owners: Hashes = np.empty(room, np.uint64)
        self._frames: Float32 = np.empty((room, width), np.float32)
        self._held = 0
        self.offered = 0
        """Frames that were added."""

    def add(self, key: str, found: Hashes, frames: Float32) -> None:
        """Add frames (n, width) of the item `key` (16 hex digits) with their hashes (n,)."""
        self.offered += len(found)
        step = len(self._hashes) - self._capacity
        for start in range(0, len(found), step):
            count = len(found[start : start + step])
            if self._held + count > len(self._hashes):
                self._shrink()
            place = slice(self._held, self._held + count)
            self._hashes[place] = found[start : start + step]
            self._owners[place] = int(key, 16)
            self._frames[place] = frames[start : start + step]
            self._held += count

    def _shrink(self) -> None:
        """Drop all but the lowest."""
        if self._held <= self._capacity:
            return
        keep = np.argpartition(self._hashes[: self._held], self._capacity - 1)[: self._capacity]
        keep.sort()  # rows then move towards the front, none onto one that is still to be moved
        for values in (self._hashes, self._owners):
            values[: self._capacity] = values[keep]
        for start in range(0, self._capacity, _AT_ONCE):
            rows = keep[start : start + _AT_ONCE]
            self._frames[start : start + len(rows)] = self._frames[rows]
        self._held = self._capacity

    def sample(self) -> Float32:
        """The frames, in the order of their hashes (of equal ones: of their items' keys)."""
        order = np.lexsort((self._owners[: self._held], self._hashes[: self._held]))
        chosen: Float32 = self._frames[order[: self._capacity]]
        return chosen


class Fitted(NamedTuple):
    """What fitting gave. `inertia` is the mean squared distance, `spread` that to one single centroid (float64)."""

    centroids: Float32
    inertia: float
    spread: float
    counts: npt.NDArray[np.int64]
    """Frames of each cluster; none is 0."""
    frames: int
    rounds: int


def fit(sample: Float32, clusters: int, seed: int = 0) -> Fitted:
    """k-means of a sample (frames, width) in random order. Raises UsageError for fewer distinct frames than clusters.

    Same bytes on any number of threads of one kind of processor.
    """
    if len(sample) < clusters:
        raise _too_few(len(sample), clusters)
    points = torch.from_numpy(np.ascontiguousarray(sample, np.float32))
    size = min(len(points), max(_FIRST, _FIRST_A_CLUSTER * clusters))
    centroids = _seeded(points[:size], clusters, np.random.Generator(np.random.PCG64(seed)))
    rounds = 0
    while True:
        state = _iterated(points[:size], centroids, last=size == len(points))
        centroids, rounds = state.centroids, rounds + state.rounds
        log.info("k-means: %d frames, %d rounds, mean squared distance %.6g.", size, state.rounds, state.inertia)
        if size == len(points):
            break
        size = min(len(points), size * _GROWTH)
    with _one_thread():
        mean = points.mean(dim=0, dtype=torch.float64)
    spread = _inertia(points, mean[None], None)
    return Fitted(centroids.numpy(), state.inertia, spread, state.counts.numpy(), len(points), rounds)


class _State(NamedTuple):
    """Centroids (float32), and of the points that were assigned to them: counts, mean squared distance."""

    centroids: Tensor
    counts: Tensor
    inertia: float
    rounds: int


def _iterated(points: Tensor, centroids: Tensor, last: bool) -> _State:
    """Lloyd's iterations until they gain little; the state returned is that of the centroids it holds."""
    most, tolerance = (_LAST_ROUNDS, _LAST_TOLERANCE) if last else (_ROUNDS, _TOLERANCE)
    before, rounds = float("inf"), 0
    while True:
        rounds += 1
        labels = Codebook(centroids).assign(points)
        counts = torch.bincount(labels, minlength=len(centroids))
        if bool((counts == 0).any()):
            # Every move lowers the inertia, so this ends, whatever the number of rounds.
            centroids = _moved(points, centroids, labels, counts)
            continue
        inertia = _inertia(points, centroids, labels)
        if rounds >= most or before - inertia <= tolerance * inertia:
            return _State(centroids, counts, inertia, rounds)
        before = inertia
        sums = torch.zeros(centroids.shape, dtype=torch.float64)
        for block in _blocks(len(points)):
            sums.index_add_(0, labels[block], points[block].double())
        centroids = (sums / counts[:, None]).float()


def _moved(points: Tensor, centroids: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Put the centroids of empty clusters onto the points that are farthest from theirs."""
    squares = torch.cat([_squares(points, centroids, labels, block) for block in _blocks(len(points))])
    centroids = centroids.clone()
    for empty in (counts == 0).nonzero()[:, 0]:
        farthest = int(squares.argmax())
        if not squares[farthest] > 0:
            raise _too_few(int((counts > 0).sum()), len(centroids))
        centroids[empty] = points[farthest]
        counts[empty] = 1
        squares[(points == points[farthest]).all(dim=1)] = 0
    return centroids


def _inertia(points: Tensor, centroids: Tensor, labels: Optional[Tensor]) -> float:
    """Mean squared distance; summed by numpy, which does it in the same order on any number of threads."""
    sums = (_squares(points, centroids, labels, block).numpy().sum() for block in _blocks(len(points)))
    return float(sum(sums)) / len(points)


def _squares(points: Tensor, centroids: Tensor, labels: Optional[Tensor], block: slice) -> Tensor:
    """Squared distances of a block of points to their centroids (no labels: to the only one), float64."""
    own = centroids if labels is None else centroids[labels[block]]
    return (points[block].double() - own.double()).square().sum(dim=1)


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _AT_ONCE, count)) for start in range(0, count, _AT_ONCE))


def _seeded(points: Tensor, clusters: int, random: np.random.Generator) -> Tensor:
    """Greedy k-means++ (Arthur and Vassilvitskii 2007): each centroid the best of some points drawn by distance²."""
    trials = 2 + int(np.log(clusters))
    with _one_thread():
        moved = points - points.mean(dim=0)
        squares = moved.square().sum(dim=1)
        chosen = [int(random.integers(len(points)))]
        nearest = _distances(moved, squares, torch.tensor(chosen))[0]
        for _ in range(1, clusters):
            reach = torch.cumsum(nearest.double(), dim=0)
            drawn = torch.from_numpy(random.random(trials)) * reach[-1]
            candidates = torch.searchsorted(reach, drawn).clamp(max=len(points) - 1)
            closer = torch.minimum(_distances(moved, squares, candidates), nearest)
            best = int(closer.sum(dim=1, dtype=torch.float64).argmin())
            chosen.append(int(candidates[best]))
            nearest = closer[best]
    return points[chosen].clone()


def _distances(moved: Tensor, squares: Tensor, rows: Tensor) -> Tensor:
    """Squared distances of all points to some of them, (rows, points)."""
    found = torch.addmm(squares, moved[rows], moved.t(), alpha=-2).add_(squares[rows, None]).clamp_(min=0)
    found[torch.arange(len(rows)), rows] = 0
    return found


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for products whose rounding counts."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _too_few(distinct: int, clusters: int) -> UsageError:
    return UsageError(
        f"There are {distinct:,} different frames in the sample, too few for {clusters:,} clusters. The manifest "
        "holds too little speech (or silence, which is all alike): ask for fewer with --clusters, sample more with "
        "--frames, or fit on a larger manifest."
    )
