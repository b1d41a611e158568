"""How recordings are cut: every frame once, whatever the blocks; textlesslib's way loses what it must."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.units.pieces import TEXTLESS, Cut

WINDOW, HOP = 400, 320


def cut(longest=16000, context=5, **settings):
    return Cut(WINDOW, HOP, longest, context, **settings)


def blocks(samples, sizes):
    start = 0
    for size in sizes:
        yield samples[start : start + size]
        start += size
    while start < len(samples):
        yield samples[start : start + 7000]
        start += 7000


def frames_of(how, samples, sizes=()):
    """The first sample of every frame that counts, in order: samples are numbered, so a frame is known by it."""
    found = []
    for piece in how.pieces(blocks(samples, sizes)):
        assert len(piece.samples) <= max(how.longest, WINDOW)
        assert 0 <= piece.first < piece.last <= how.frames(len(piece.samples))
        found += [piece.samples[frame * HOP] for frame in range(piece.first, piece.last)]
    return found


@settings(max_examples=200)
@given(
    length=st.integers(WINDOW, 90_000),
    longest=st.integers(20 * HOP, 40_000),
    context=st.integers(1, 6),
    sizes=st.lists(st.integers(1, 30_000), max_size=6),
)
def test_every_frame_of_a_recording_counts_once(length, longest, context, sizes):
    samples = np.arange(length, dtype=np.float64)
    found = frames_of(cut(longest, context), samples, sizes)
    assert found == [frame * HOP for frame in range((length - WINDOW) // HOP + 1)]


@settings(max_examples=100)
@given(length=st.integers(50_000, 90_000), context=st.integers(1, 6))
def test_frames_see_their_context_on_both_sides_of_a_cut(length, context):
    samples = np.arange(length, dtype=np.float64)
    pieces = list(cut(20_000, context).pieces(iter([samples])))
    assert len(pieces) > 1
    for number, piece in enumerate(pieces):
        before, after = piece.first, cut().frames(len(piece.samples)) - piece.last
        assert before == (context if number else 0)
        assert after == (context if number < len(pieces) - 1 else 0)


@pytest.mark.parametrize("length", [1, 199, 399])
def test_a_recording_shorter_than_a_frame_is_padded_to_one(length):
    for mode in ("overlapping", TEXTLESS):
        (piece,) = cut(mode=mode, context=0).pieces(iter([np.ones(length, np.float32)]))
        assert (len(piece.samples), piece.first, piece.last) == (WINDOW, 0, 1)
        assert piece.samples.sum() == length


@pytest.mark.parametrize(
    ("length", "frames"),
    [
        (16_000, [49]),
        (16_399, [49]),  # a tail of 399 samples makes no frame; textlesslib crashes on it
        (16_400, [49, 1]),
        (48_000, [49, 49, 49]),  # and not 149: a frame is lost at each cut
    ],
)
def test_end_to_end_as_textlesslib(length, frames):
    pieces = list(cut(mode=TEXTLESS, context=0).pieces(iter([np.ones(length, np.float32)])))
    assert [piece.last - piece.first for piece in pieces] == frames


def test_no_samples_no_pieces():
    assert list(cut().pieces(iter([]))) == []
    assert cut().frames(0) == 0
