"""Distributions: exact where they say so, close elsewhere, whatever the values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm.view.sketch import Sketch

VALUES = st.lists(
    st.one_of(st.floats(-1e6, 1e6), st.floats(0, 1), st.just(0.0), st.floats(1e-5, 1e5)), min_size=1, max_size=200
)


def made(values: list[float]) -> Sketch:
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    return sketch


@given(VALUES)
def test_counts_sums_and_extremes_are_exact(values):
    sketch = made(values)
    assert sketch.count == len(values)
    assert sketch.low == min(values)
    assert sketch.high == max(values)
    assert sketch.total == pytest.approx(sum(values), abs=1e-6)


@given(VALUES, st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]))
def test_quantiles_are_close_to_a_value_of_that_rank(values, share):
    values = [value for value in values if value == 0 or abs(value) >= 1e-8] or [1.0]
    sketch = made(values)
    ordered = sorted(values)
    rank = max(1, math.ceil(share * len(ordered))) - 1
    near = {ordered[place] for place in (max(0, rank - 1), rank, min(len(ordered) - 1, rank + 1))}
    found = sketch.quantile(share)
    assert any(abs(found - value) <= 0.003 * abs(value) + 1e-12 for value in near)


@given(VALUES)
def test_no_histogram_loses_a_value(values):
    sketch = made(values)
    assert sum(each.size for each in sketch.logarithmic()) == sum(value > 0 for value in values)
    assert sum(each.size for each in sketch.even(20, sketch.low, sketch.high)) == len(values)
    bins = sketch.logarithmic()
    assert all(a.high == b.low for a, b in zip(bins, bins[1:]))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=100))
def test_shares_are_binned_whole(values):
    assert sum(each.size for each in made(values).parts(50)) == len(values)


def test_memory_does_not_grow_with_the_values():
    sketch = made([10 ** (place / 1e4) for place in range(-40_000, 40_000)])
    assert len(sketch._positive) <= 8001


def test_values_of_a_fixed_frame_make_no_comb():
    """Lengths in frames of 32 ms, evenly many of each: no bin between them may be empty, none may tower."""
    sketch = made([0.032 * frames for frames in range(1, 200) for _ in range(max(1, 400 // frames))] + [0.003] * 4)
    bins = sketch.logarithmic()
    heights = [each.size / math.log(each.high / each.low) for each in bins[:-1]]
    assert min(heights) > 0
    assert all(0.4 < a / b < 2.5 for a, b in zip(heights[1:], heights[2:]))


def test_shares_are_told_from_counts():
    assert made([0.2, 0.5, 1.0]).is_share
    assert not made([0.0, 1.0, 1.0]).is_share
    assert not made([0.2, 3.0]).is_share
