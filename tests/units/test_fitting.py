"""Samples that no split of the items changes, and k-means that is good, never leaves a cluster empty, and is one."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.core.errors import UsageError
from pipelines.units import fitting
from pipelines.units.codebook import Codebook
from pipelines.units.fitting import Reservoir, fit, hashes
from pipelines.units.logmel import LogMel
from tests import corpus


@pytest.fixture(scope="module")
def bands():
    """Log-mel frames of real speech, in random order."""
    try:
        files = corpus.speech("en", 150, longest=8.0)
    except corpus.Missing as reason:
        pytest.skip(str(reason))
    waveforms = [torch.from_numpy(corpus.read_wave(path).astype(np.float32) / 32768) for path in files]
    frames = torch.cat([LogMel()(each[None])[0] for each in waveforms]).numpy()
    return np.random.default_rng(0).permutation(frames)


def inertia(centroids, frames):
    labels = Codebook(torch.from_numpy(centroids)).assign(torch.from_numpy(frames)).numpy()
    return float(((frames.astype(np.float64) - centroids[labels]) ** 2).sum(axis=1).mean()), np.bincount(labels)


# -- the sample


def by_the_book(key, seed, count):
    """SplitMix64 in Python's integers."""
    state = int.from_bytes(hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=8).digest(), "little")
    found = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        mixed = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % 2**64
        found.append(mixed ^ mixed >> 31)
    return found


def test_a_frames_hash_is_its_own():
    assert np.array_equal(hashes("a" * 16, 0, 5), hashes("a" * 16, 0, 1000)[:5])
    assert hashes("a" * 16, 7, 3).tolist() == by_the_book("a" * 16, 7, 3)
    assert len({tuple(hashes(key, seed, 4)) for key in ("a" * 16, "b" * 16) for seed in (0, 1)}) == 4
    share = (hashes("c" * 16, 0, 200_000) < np.uint64(2**64 // 10)).mean()
    assert abs(share - 0.1) < 0.004
    assert len(hashes("a" * 16, 0, 0)) == 0


@given(
    capacity=st.integers(1, 400),
    sizes=st.lists(st.integers(0, 200), max_size=20),
    order=st.randoms(use_true_random=False),
    room=st.sampled_from([1, 50, 1 << 14]),
)
@settings(max_examples=60)
def test_a_reservoir_holds_the_lowest_whatever_the_order(capacity, sizes, order, room):
    items = [(f"{number:016x}", size) for number, size in enumerate(sizes)]
    found = {key: hashes(key, 0, size) for key, size in items}
    frames = {key: np.stack([found[key] % 1000, found[key] // 1000 % 1000], 1).astype(np.float32) for key, _ in items}
    everything = np.concatenate([*found.values(), np.empty(0, np.uint64)])
    chosen = np.sort(everything)[:capacity]
    expected = np.stack([chosen % 1000, chosen // 1000 % 1000], 1).astype(np.float32)
    order.shuffle(items)
    reservoir = Reservoir(capacity, 2)
    spare = len(reservoir._hashes) - capacity - room
    for name in ("_hashes", "_owners", "_frames"):  # little room, so that it has to shrink
        setattr(reservoir, name, getattr(reservoir, name)[: len(reservoir._hashes) - max(0, spare)])
    for key, _ in items:
        reservoir.add(key, found[key], frames[key])
    assert np.array_equal(reservoir.sample(), expected)
    assert reservoir.offered == len(everything)


# -- the fit


@pytest.mark.parametrize("clusters", [50, 300])
def test_it_is_as_good_as_scikit_learns(bands, clusters):
    from sklearn.cluster import MiniBatchKMeans

    ours = fit(bands, clusters)
    theirs = MiniBatchKMeans(clusters, batch_size=5000, n_init=3, random_state=0).fit(bands)
    found, counts = inertia(ours.centroids, bands)
    expected, _ = inertia(theirs.cluster_centers_.astype(np.float32), bands)
    assert found <= 1.05 * expected
    assert ours.inertia == pytest.approx(found, rel=1e-9)
    assert np.array_equal(ours.counts, counts)
    assert ours.spread == pytest.approx(bands.astype(np.float64).var(axis=0).sum(), rel=1e-9)
    assert ours.frames == len(bands)


def test_threads_change_no_byte(bands):
    usual = torch.get_num_threads()
    try:
        made = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            made.append(fit(bands[:12_000], 64))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(usual)
    assert len({(each.centroids.tobytes(), each.inertia) for each in made}) == 1


def test_seeds_differ(bands):
    assert not np.array_equal(fit(bands[:3000], 20, 0).centroids, fit(bands[:3000], 20, 1).centroids)


def lumps(name):
    """Data that makes clusters empty: few distinct points, in numbers that differ by orders."""
    random = np.random.default_rng(0)
    if name == "copies":
        return np.repeat(random.normal(size=(40, 3)), [1] * 20 + [500] * 20, axis=0)
    if name == "a heap and dust":
        return np.concatenate([np.zeros((5000, 3)), random.normal(size=(60, 3))])
    if name == "far away":
        return random.normal(size=(900, 3)) + 1e4
    return np.concatenate([random.normal(size=(2000, 3)) * 1e-3, random.normal(size=(50, 3)) * 1e3])


@pytest.mark.parametrize("name", ["copies", "a heap and dust", "far away", "two scales"])
@pytest.mark.parametrize("clusters", [2, 13, 40])
def test_no_cluster_is_ever_empty(name, clusters):
    frames = np.random.default_rng(1).permutation(lumps(name)).astype(np.float32)
    fitted = fit(frames, clusters)
    _, counts = inertia(fitted.centroids, frames)
    assert len(counts) == clusters
    assert counts.min() >= 1
    assert len(np.unique(fitted.centroids, axis=0)) == clusters


def test_clusters_that_empty_later_are_put_where_the_frames_are(monkeypatch):
    monkeypatch.setattr(fitting, "_seeded", lambda _, clusters, *__: torch.full((clusters, 2), 99.0))
    frames = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
    fitted = fit(frames, 30)
    assert fitted.counts.min() >= 1
    assert fitted.inertia < 0.2


@pytest.mark.parametrize(("distinct", "clusters"), [(5, 6), (1, 2), (39, 40)])
def test_fewer_distinct_frames_than_clusters_are_refused(distinct, clusters):
    frames = np.repeat(np.random.default_rng(0).normal(size=(distinct, 4)).astype(np.float32), 50, axis=0)
    with pytest.raises(
        UsageError, match=rf"{distinct} different frames in the sample, too few for {clusters} clusters"
    ):
        fit(frames, clusters)


def test_fewer_frames_than_clusters_are_refused():
    with pytest.raises(UsageError, match="3 different frames"):
        fit(np.zeros((3, 4), np.float32), 5)


def test_as_many_clusters_as_distinct_frames():
    frames = np.repeat(np.random.default_rng(0).normal(size=(37, 4)).astype(np.float32), 3, axis=0)
    fitted = fit(frames, 37)
    assert fitted.inertia < 1e-12
    assert fitted.counts.tolist() == [3] * 37


def test_it_grows_into_all_frames(bands, monkeypatch):
    monkeypatch.setattr(fitting, "_FIRST", 500)
    nested = fit(bands[:9000], 20)
    monkeypatch.undo()
    assert nested.inertia < 1.05 * fit(bands[:9000], 20).inertia
    assert nested.frames == 9000
