"""Statistics: the seed program's figures, recomputed the way it did, frame by frame."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.vad.columns import COLUMNS
from pipelines.vad.statistics import result
from pipelines.voice.segments import Rules, segments

HOP, RATE = 256, 16000


def splits_by_frames(flags):
    """The seed program's search, walking over frames."""
    found, target, window, shortest = [], int(30 * RATE / HOP), int(10 * RATE / HOP), int(0.3 * RATE / HOP)
    position, total = target, len(flags)
    while position < total - target:
        end, i, hit = min(position + window, total), position, False
        while i < end:
            if flags[i]:
                i += 1
                continue
            start = i
            while i < total and not flags[i]:
                i += 1
            if i - start >= shortest:
                found.append(start + (i - start) // 2)
                position, hit = found[-1] + target, True
                break
        if not hit:
            position += window
    return found


def figures_by_frames(flags):
    edges = np.r_[0, np.flatnonzero(np.diff(flags)) + 1, len(flags)]
    lengths = np.diff(edges) * HOP / RATE
    kinds = flags[edges[:-1]] if len(flags) else np.array([], int)
    out = {"spch-ratio": float(flags.mean()) if len(flags) else 0.0}
    for name, kind in (("spoken", 1), ("nospch", 0)):
        some = lengths[kinds == kind] if len(flags) else lengths[:0]
        out["max-" + name] = float(some.max()) if some.size else 0.0
        out["min-" + name] = float(some.min()) if some.size else 0.0
        out["avg-" + name] = float(some.mean()) if some.size else 0.0
    return out


run_lengths = st.lists(st.integers(1, 900), max_size=4) | st.lists(
    st.one_of(st.integers(1, 60), st.integers(400, 1300)), min_size=12, max_size=40
)


@settings(max_examples=400)
@given(run_lengths, st.booleans(), st.integers(0, HOP - 1))
def test_the_seed_programs_figures(lengths, first, rest):
    flags = np.concatenate([np.full(count, (number + first) % 2) for number, count in enumerate(lengths)] or [[]])
    flags = flags.astype(int)
    samples = len(flags) * HOP + rest
    bounds = segments(flags.astype(np.float32), HOP, len(flags) * HOP, Rules())
    found = result(bounds, len(flags) * HOP, round(samples / RATE, 6))
    expected = figures_by_frames(flags)
    for name in COLUMNS:
        assert found[name] == pytest.approx(expected[name], abs=1e-6), name
    if found["duration"] >= 30:
        assert found["splits"] == splits_by_frames(flags)
    else:
        assert "splits" not in found
    assert all(0 <= start < end <= found["duration"] for start, end in found["segments"])


def test_documented_example_of_splits():
    """Pauses at 36, 50, 75 and 100 s of 120 s: split in the first after each 30 s."""
    flags = np.ones(120 * RATE // HOP, np.float32)
    for second in (36, 50, 75, 100):
        flags[second * RATE // HOP : int((second + 0.6) * RATE / HOP)] = 0
    bounds = segments(flags, HOP, len(flags) * HOP, Rules())
    found = result(bounds, len(flags) * HOP, 120.0)
    assert [round(frame * HOP / RATE, 1) for frame in found["splits"]] == [36.3, 75.3]


def test_result_is_compact_json_with_times_in_milliseconds():
    bounds = np.array([[256, 1024], [2048, 4097]])
    found = result(bounds, 8000, 0.5)
    assert found["segments"] == [[0.016, 0.064], [0.128, 0.256]]
    assert json.loads(json.dumps(found)) == found


def test_segments_do_not_end_after_the_recording():
    assert result(np.array([[0, 11025]]), 11025, 0.689)["segments"] == [[0.0, 0.689]]


def test_nothing_at_all():
    found = result(np.empty((0, 2), np.int64), 0, 0.01)
    assert found["spch-ratio"] == 0.0
    assert found["max-spoken"] == found["max-nospch"] == 0.0
    assert found["segments"] == []


def test_no_segment_is_empty_or_ends_after_its_recording():
    """An engine's last window may hold a few samples only, and a millisecond may round up."""
    die = np.random.default_rng(0)
    for _ in range(300):
        length = int(die.integers(2000, 400_000))
        start = length - int(die.integers(1, 40))
        duration = round(length / RATE, 6)
        for bounds in ([[start, length]], [[1000, length]]):
            for first, last in result(np.array(bounds), length, duration)["segments"]:
                assert first < last
                assert first + round(last - first, 3) <= duration + 1e-9
