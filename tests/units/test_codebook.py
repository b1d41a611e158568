"""The nearest centroid: exactly, the lowest of equals, however frames are batched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.core.errors import UsageError
from pipelines.units import codebook, models
from pipelines.units.codebook import Codebook
from tests.units.voices import codebook_folder


def exactly(features, centroids):
    """By differences in float64; numpy's argmin takes the first of equals."""
    features, centroids = features.double().numpy(), centroids.double().numpy()
    return np.stack([((row - centroids) ** 2).sum(axis=1).argmin() for row in features])


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 2, 7, 100, 700]),
    st.sampled_from([1, 3, 80, 768]),
    st.sampled_from([0.0, 1.0, 1000.0]),
    st.sampled_from([1e-3, 1.0, 30.0]),
)
@settings(max_examples=60)
def test_it_is_the_nearest_in_float64(seed, clusters, width, away, scale):
    random = torch.Generator().manual_seed(seed)
    centroids = torch.randn(clusters, width, generator=random) * scale + away
    features = torch.randn(200, width, generator=random) * scale + away
    pairs = torch.randint(0, clusters, (2, 100), generator=random)
    features[:100] = (centroids[pairs[0]] + centroids[pairs[1]]) / 2  # as near to a tie as float32 allows
    assert np.array_equal(Codebook(centroids).assign(features).numpy(), exactly(features, centroids))


def test_of_equals_the_lowest():
    centroids = torch.randn(40, 80)
    twice = torch.cat([centroids[[7]], centroids, centroids])
    found = Codebook(twice).assign(centroids)
    assert found.tolist() == [n + 1 if n != 7 else 0 for n in range(40)]
    both_sides = Codebook(torch.tensor([[9.0, 9.0], [1.0, 0.0], [-1.0, 0.0]]))
    assert both_sides.assign(torch.tensor([0.0, 3.0])).item() == 1


@given(cuts=st.lists(st.integers(0, 3000), max_size=8), cells=st.sampled_from([1, 5000, 1 << 19]))
@settings(max_examples=30)
def test_batches_and_chunks_change_nothing(cuts, cells):
    random = torch.Generator().manual_seed(1)
    book = Codebook(torch.randn(500, 80, generator=random) * 3 - 6)
    features = torch.randn(3000, 80, generator=random) * 3 - 6
    whole = book.assign(features)
    usual, codebook._CELLS = codebook._CELLS, cells
    try:
        parts = [book.assign(part) for part in torch.tensor_split(features, sorted(cuts))]
    finally:
        codebook._CELLS = usual
    assert torch.equal(torch.cat(parts), whole)


def test_shapes():
    book = Codebook(torch.randn(9, 4))
    assert (book.size, book.width) == (9, 4)
    assert book.assign(torch.randn(3, 5, 4)).shape == (3, 5)
    assert book.assign(torch.randn(4)).shape == ()
    assert book.assign(torch.empty(0, 4)).shape == (0,)
    assert book.assign(torch.empty(2, 0, 4)).dtype == torch.int64
    assert torch.equal(book.assign(book.centroids.bfloat16()), book.assign(book.centroids.bfloat16().float()))


def test_another_width_is_refused():
    with pytest.raises(UsageError, match="768 numbers a frame, and the codebook's centroids 80"):
        Codebook(torch.randn(10, 80)).assign(torch.randn(5, 768))


@pytest.mark.parametrize("centroids", [torch.full((3, 4), torch.nan), torch.zeros(0, 4), torch.zeros(4)])
def test_what_is_no_codebook_is_refused(centroids):
    with pytest.raises(UsageError, match="A codebook is a matrix"):
        Codebook(centroids)


def test_it_loads_from_a_model_folder(tmp_path):
    centroids = np.random.default_rng(0).normal(size=(12, 80)).astype(np.float32)
    book = Codebook.load(models.describe(str(codebook_folder(tmp_path, "book", centroids)), "codebook"))
    assert np.array_equal(book.centroids.numpy(), centroids)
