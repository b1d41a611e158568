"""The time axis: order kept, pauses left out, labels apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm.view.time_axis import TimeAxis, spoken

SPANS = st.lists(st.tuples(st.floats(0, 1e6), st.floats(0.1, 1e5)), min_size=1, max_size=8).map(
    lambda pairs: _disjoint(sorted((start, start + length) for start, length in pairs))
)


def _disjoint(spans):
    found = [spans[0]]
    for start, end in spans[1:]:
        if start > found[-1][1]:
            found.append((start, end))
    return found


@given(SPANS, st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_later_is_never_further_left(spans, places):
    axis = TimeAxis(spans, 5.5)
    times = sorted(spans[0][0] + place * (spans[-1][1] - spans[0][0]) for place in places)
    marks = [axis.x(time) for time in times]
    assert marks == sorted(marks)
    assert all(5.5 - 1e-9 <= mark <= 100 + 1e-9 for mark in marks)


@given(SPANS)
def test_labels_do_not_overlap(spans):
    axis = TimeAxis(spans)
    for piece in axis.pieces:
        marks = [tick.x for tick in axis.ticks() if piece.left <= tick.x <= piece.right]
        assert all(b - a >= 12.9 for a, b in zip(marks, marks[1:]))


def test_a_day_without_work_takes_no_room():
    axis = TimeAxis([(0, 600), (86_400, 87_000)])
    assert [pause.label for pause in axis.pauses()] == ["24 h"]
    first, second = axis.pieces
    assert first.right - first.left == pytest.approx(second.right - second.left)
    assert second.left - first.right < 5


def test_a_short_gap_stays_in_place():
    assert len(TimeAxis([(0, 600), (660, 1200)]).pieces) == 1


def test_moments_are_said_in_words():
    assert spoken("2026-11-21T14:05:09Z") == "21 Nov 2026, 14:05 UTC"
