"""The laws of segments, against what a plain loop would do."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.voice.segments import Rules, close_silences, pad, runs, segments, speech

HOP = 4
levels = st.sampled_from([0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.9, 0.9, 0.9])
probabilities = st.lists(st.tuples(levels, st.integers(1, 12)), max_size=20).map(
    lambda runs: (
        np.repeat(*(np.array(column, kind) for column, kind in zip(zip(*runs), (np.float32, int))))
        if runs
        else np.empty(0, np.float32)
    )
)


@st.composite
def rules(draw):
    onset = draw(st.sampled_from([0.3, 0.5, 0.6]))
    offset = draw(st.sampled_from([0.2, 0.3, 0.5, 0.6]).filter(lambda value: value <= onset))
    times = [draw(st.integers(0, 30)) for _ in range(4)]
    times[1] = draw(
        st.sampled_from([0, HOP, 3 * HOP, times[1], 200])
    )  # much closed silence, so that there are pauses to cut at
    least = times[2] + times[3] + 2 * max(1, times[0])
    longest = draw(st.none() | st.integers(least, least + 60))
    return Rules(onset, offset, *times, longest)


def flags_by_loop(values, onset, offset):
    out, on = [], False
    for value in values:
        on = value > np.float32(onset) or (on and value > np.float32(offset))
        out.append(on)
    return out


@given(probabilities, rules())
def test_hysteresis_is_the_loop(values, rule):
    assert speech(values, rule.onset, rule.offset).tolist() == flags_by_loop(values, rule.onset, rule.offset)


@given(st.lists(st.booleans(), max_size=40))
def test_runs_say_where_the_flags_are(flags):
    found = runs(np.array(flags, bool))
    again = np.zeros(len(flags), bool)
    for start, end in found:
        assert start < end
        again[start:end] = True
    assert again.tolist() == flags
    assert all(after[0] > before[1] for before, after in zip(found, found[1:]))


def by_loop(values, rule, length):
    """Raw runs, then silences closed, then short speech dropped."""
    flags = flags_by_loop(values, rule.onset, rule.offset)
    joined: list[list[int]] = []
    for number, flag in enumerate(flags):
        start, end = number * HOP, min((number + 1) * HOP, length)
        if not flag or start >= end:
            continue
        if joined and start - joined[-1][1] < max(1, rule.min_silence):
            joined[-1][1] = end
        else:
            joined.append([start, end])
    return [segment for segment in joined if segment[1] - segment[0] >= rule.min_speech]


@settings(max_examples=300)
@given(probabilities, rules(), st.integers(0, HOP - 1))
def test_without_padding_and_cuts_it_is_the_loop(values, rule, short):
    length = max(0, len(values) * HOP - short)
    rule = rule._replace(pad_onset=0, pad_offset=0, max_segment=None)
    assert segments(values, HOP, length, rule).tolist() == by_loop(values, rule, length)


@settings(max_examples=500)
@given(probabilities, rules(), st.integers(0, HOP - 1))
def test_laws(values, rule, short):
    """Sorted, disjoint, inside the recording; lengths and silences as asked, apart from those that a cut makes."""
    length = max(0, len(values) * HOP - short)
    found = segments(values, HOP, length, rule).tolist()
    edges = [edge for segment in found for edge in segment]
    assert edges == sorted(edges)
    assert all(0 <= start < end <= length for start, end in found)
    if rule.max_segment is not None:
        assert all(end - start <= rule.max_segment for start, end in found)
    assert all(end - start >= min(rule.min_speech, length) for start, end in found)
    bare = segments(values, HOP, length, rule._replace(pad_onset=0, pad_offset=0, max_segment=None)).tolist()
    assert all(after[0] - before[1] >= max(1, rule.min_silence) for before, after in zip(bare, bare[1:]))


@given(probabilities, rules(), st.integers(0, HOP - 1))
def test_padding_only_adds_and_never_more_than_asked(values, rule, short):
    length = max(0, len(values) * HOP - short)
    rule = rule._replace(max_segment=None)
    bare = segments(values, HOP, length, rule._replace(pad_onset=0, pad_offset=0)).tolist()
    padded = segments(values, HOP, length, rule).tolist()
    assert len(bare) == len(padded)
    for (start, end), (first, last) in zip(bare, padded):
        assert start - rule.pad_onset <= first <= start
        assert end <= last <= end + rule.pad_offset


@given(probabilities, rules(), st.integers(0, HOP - 1))
def test_cutting_loses_only_pauses(values, rule, short):
    """What a cut leaves out was silence in the raw runs, and every piece keeps the shortest length."""
    length = max(0, len(values) * HOP - short)
    rule = rule._replace(pad_onset=0, pad_offset=0)
    whole = _samples(segments(values, HOP, length, rule._replace(max_segment=None)), length)
    cut = _samples(segments(values, HOP, length, rule), length)
    raw = _samples(segments(values, HOP, length, Rules(rule.onset, rule.offset)), length)
    assert not (cut & ~whole).any()
    assert not (whole & ~cut & raw).any()


def _samples(bounds, length):
    marks = np.zeros(length, bool)
    for start, end in bounds:
        marks[start:end] = True
    return marks


def test_the_cut_is_at_the_longest_pause():
    values = np.full(40, 0.9, np.float32)
    values[10:12] = values[20:24] = values[30:33] = 0.1  # pauses of 8, 16 and 12 samples
    rule = Rules(min_silence=20, max_segment=140)
    assert segments(values, HOP, 160, rule).tolist() == [[0, 80], [96, 160]]


def test_no_cut_leaves_a_piece_that_is_too_short():
    values = np.full(40, 0.9, np.float32)
    values[14:16] = values[34:38] = 0.1  # the longer pause would leave 8 samples behind it
    rule = Rules(min_silence=20, min_speech=20, max_segment=150)
    assert segments(values, HOP, 160, rule).tolist() == [[0, 56], [64, 160]]


def test_a_silence_of_just_the_least_length_stays():
    values = np.array([0.9, 0.1, 0.1, 0.9], np.float32)
    assert segments(values, HOP, 16, Rules(min_silence=8)).tolist() == [[0, 4], [12, 16]]
    assert segments(values, HOP, 16, Rules(min_silence=9)).tolist() == [[0, 16]]


def test_without_a_pause_the_cut_is_where_speech_is_least_likely():
    values = np.full(40, 0.9, np.float32)
    values[22] = 0.6
    assert segments(values, HOP, 160, Rules(max_segment=120)).tolist() == [[0, 88], [88, 160]]


def test_raw_runs_are_the_default():
    values = np.array([0.1, 0.6, 0.5, 0.51, 0.9, 0.2], np.float32)
    assert segments(values, 256, 6 * 256, Rules()).tolist() == [[256, 512], [768, 1280]]


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), max_size=10), st.integers(1, 15))
@example([], 3)
def test_closing_is_idempotent(steps, shortest):
    edges = np.cumsum([value for step in steps for value in step]).reshape(-1, 2)
    once = close_silences(edges, shortest)
    assert close_silences(once, shortest).tolist() == once.tolist()


def test_padding_shares_a_short_silence():
    bounds = np.array([[100, 200], [230, 300]])
    assert pad(bounds, 20, 40, 1000).tolist() == [[80, 220], [220, 340]]
    assert pad(bounds, 10, 0, 1000).tolist() == [[90, 200], [220, 300]]
