"""How recordings are cut: all speech once, no piece too long, in order, the same whatever the blocks and threads."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipelines.asr import cutting
from pipelines.asr.cutting import ALWAYS, AUTO, NEVER, Cutting, cut, extracted
from pipelines.asr.packing import Limits, Track, packed, tidy
from pipelines.audio import RATE
from pipelines.core.errors import EnvironmentNotFit, ItemError
from pipelines.voice import engines
from pipelines.voice.speech import listen
from tests import corpus

HOP = 4
property_test = settings(max_examples=300)


@st.composite
def recordings(draw):
    """(speech, length, limits, track) on a small scale."""
    steps = draw(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 90)), max_size=20))
    edges = np.cumsum([value for step in steps for value in step], dtype=np.int64).reshape(-1, 2)
    length = int(edges[-1, 1]) + draw(st.integers(0, 40)) if len(edges) else draw(st.integers(0, 40))
    limits = Limits(draw(st.integers(16, 80)), draw(st.integers(0, 70)), draw(st.integers(0, 8)))
    assume(limits.pad * 2 < limits.longest)
    frames = -(-length // HOP)
    level = np.random.default_rng(draw(st.integers(0, 99))).choice([0.0, 20.0, 60.0, 70.0], frames)
    heard = draw(st.booleans())
    probabilities = np.linspace(0, 1, frames).astype(np.float32) if heard else None
    return edges, length, limits, Track(HOP, level.astype(np.float32), probabilities)


def marked(spans, length):
    marks = np.zeros(length, int)
    for start, end in spans:
        marks[start:end] += 1
    return marks


@property_test
@given(recordings(), st.booleans())
def test_pieces_hold_all_speech_once_in_order_and_none_is_too_long(recording, known):
    speech, length, limits, track = recording
    pieces = packed(speech, length, limits, track if known else None)
    edges = [edge for piece in pieces for edge in piece]
    assert edges == sorted(edges)
    assert all(0 <= start < end <= length for start, end in pieces)
    assert all(end - start <= limits.longest for start, end in pieces)
    covered = marked(pieces, length)
    assert set(covered) <= {0, 1}
    assert (covered[marked(speech.tolist(), length) == 1] == 1).all()


@property_test
@given(recordings())
def test_silence_longer_than_a_gap_is_in_no_piece(recording):
    speech, length, limits, track = recording
    covered = marked(packed(speech, length, limits, track), length)
    for before, after in zip(speech[:-1, 1].tolist(), speech[1:, 0].tolist()):
        if after - before > limits.gap:
            assert covered[before:after].sum() <= 2 * limits.pad
    if len(speech):
        assert covered[: speech[0, 0]].sum() <= limits.pad
        assert covered[speech[-1, 1] :].sum() <= limits.pad


@property_test
@given(recordings())
def test_speech_that_fits_is_not_cut(recording):
    """With a pause on both sides, every stretch of speech that a piece holds with its padding is in one piece."""
    speech, length, limits, track = recording
    pieces = packed(speech, length, limits, track)
    for start, end in speech.tolist():
        if end - start + 2 * limits.pad <= limits.longest:
            assert any(first <= start and end <= last for first, last in pieces)


@property_test
@given(recordings())
def test_no_two_neighbours_would_do_as_one(recording):
    """Pieces are as few as gaps and their longest length allow, unless there is a full pause between."""
    speech, length, limits, track = recording
    pieces = packed(speech, length, limits._replace(pad=0), track)
    starts = set(speech[:, 0].tolist())
    for (first, stop), (go, last) in zip(pieces, pieces[1:]):
        if go - stop <= limits.gap and go in starts:
            assert last - first > limits.longest


def test_cuts_are_at_the_longest_pauses():
    second = RATE
    speech = np.array([[0, 18], [19, 30], [30.2, 38], [38.3, 60], [62, 70]]) * second
    limits = Limits(40 * second, 3 * second, second // 10)
    pieces = packed(speech.astype(np.int64), 70 * second, limits, None)
    # One cut would do at 30.2 or 38.3 s; the pause of a second at 18 s leaves 41 s and more behind it.
    assert [(start / second, end / second) for start, end in pieces] == [(0.0, 38.1), (38.2, 70.0)]


def test_long_speech_is_cut_where_it_is_weakest():
    frames = 60 * RATE // 512
    level = np.full(frames, 70, np.float32)
    level[[700, 1100]] = 65, 40  # 22.4 s and 35.2 s
    speech = np.array([[0, frames * 512]])
    limits = Limits(40 * RATE, 2 * RATE, 0)
    [(start, at), (again, end)] = packed(speech, frames * 512, limits, Track(512, level))
    assert (start, end) == (0, frames * 512)
    assert at == again
    assert abs(at / RATE - 35.2) < 0.15
    likely = np.ones(frames, np.float32)
    likely[640:644] = 0.6
    level[:] = 70
    [(_, at), _] = packed(speech, frames * 512, limits, Track(512, level, likely))
    assert abs(at / RATE - 20.5) < 0.1


@property_test
@given(
    st.lists(st.tuples(st.floats(-1, 8), st.floats(-1, 8)), max_size=12),
    st.integers(0, 5 * RATE),
)
def test_given_segments_become_bounds(segments, length):
    bounds = tidy(segments, length)
    edges = bounds.ravel().tolist()
    assert edges == sorted(set(edges))
    assert all(0 <= edge <= length for edge in edges)
    clipped = [(max(0, round(start * RATE)), min(length, round(end * RATE))) for start, end in segments]
    assert (marked(bounds, length) == (marked([pair for pair in clipped if pair[1] > pair[0]], length) > 0)).all()


def blocks_of(samples, sizes):
    at, number = 0, 0
    while at < len(samples):
        size = sizes[number % len(sizes)]
        yield samples[at : at + size]
        at, number = at + size, number + 1


@property_test
@given(
    st.integers(0, 300),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), max_size=8),
    st.lists(st.integers(1, 90), min_size=1, max_size=4),
)
def test_pieces_are_taken_from_blocks_of_any_size(length, steps, sizes):
    samples = np.arange(length, dtype=np.float32)
    spans, at = [], 0
    for gap, size in steps:
        spans.append((at + gap, at + gap + size))
        at += gap + size
    if at > length:
        with pytest.raises(ItemError, match="shorter"):
            list(extracted(blocks_of(samples, sizes), spans))
        return
    found = list(extracted(blocks_of(samples, sizes), spans))
    assert [(piece.first, piece.last) for piece in found] == spans
    assert all(np.array_equal(piece.samples, samples[piece.first : piece.last]) for piece in found)


# -- with an engine


@pytest.fixture(scope="module")
def spoken():
    """Four minutes of real speech with pauses of 0.3 to 4 seconds, float32, and the true bounds."""
    try:
        files = corpus.speech("en", 60, longest=12.0)
    except corpus.Missing as reason:
        pytest.skip(str(reason))
    random = np.random.default_rng(0)
    parts, bounds, at = [], [], 0
    for path in files:
        samples = corpus.read_wave(path)
        silence = np.zeros(round(random.choice([0.3, 0.6, 1.0, 1.5, 4.0]) * RATE), np.int16)
        bounds.append((at + len(silence), at + len(silence) + len(samples)))
        parts += [silence, samples]
        at += len(silence) + len(samples)
    return (np.concatenate(parts) / np.float32(32768)).astype(np.float32), bounds


@pytest.fixture(scope="module", params=["silero", "ten"])
def how(request):
    try:
        cutting.engines.shared(request.param, "asr")
    except EnvironmentNotFit as error:
        pytest.skip(str(error))
    return Cutting(30.0, engine=request.param)


def of(samples, how, sizes=(160_000,), given=None):
    return list(cut(lambda: blocks_of(samples, sizes), how, given))


def bare(pieces):
    return [(piece.first, piece.last, piece.samples.tobytes()) for piece in pieces]


def test_a_long_recording(spoken, how):
    samples, bounds = spoken
    pieces = of(samples, how)
    assert all(piece.duration <= 30.0 for piece in pieces)
    assert all(len(piece.samples) == piece.last - piece.first for piece in pieces)
    assert all(np.array_equal(piece.samples, samples[piece.first : piece.last]) for piece in pieces)
    covered = marked([(piece.first, piece.last) for piece in pieces], len(samples))
    assert covered.max() == 1
    loud = np.zeros(len(samples), bool)
    for start, end in bounds:
        loud[start:end] = np.abs(samples[start:end]) > 0.02
    assert (covered[loud] == 1).mean() > 0.999
    assert np.mean([piece.duration for piece in pieces]) > 8


def test_the_same_pieces_whatever_the_blocks_and_threads(spoken, how, monkeypatch):
    samples = spoken[0][: 70 * RATE]
    expected = bare(of(samples, how))
    for sizes in ((len(samples),), (7777,), (100_000, 13)):
        assert bare(of(samples, how, sizes)) == expected
    with ThreadPoolExecutor(3) as pool:
        assert all(bare(found) == expected for found in pool.map(lambda _: of(samples, how), range(3)))
    monkeypatch.setattr(cutting, "KEPT_S", 0.0)  # read twice
    assert bare(of(samples, how, (50_000,))) == expected


def test_given_segments(spoken, how):
    samples, bounds = spoken
    given = [(start / RATE, end / RATE) for start, end in bounds]
    pieces = of(samples, how, given=given)
    covered = marked([(piece.first, piece.last) for piece in pieces], len(samples))
    assert all((covered[start:end] == 1).all() for start, end in bounds)
    assert all(piece.duration <= 30.0 for piece in pieces)
    assert of(samples, how, given=[]) == []


def test_never_takes_all_of_it_and_cuts_where_it_is_quiet(spoken, how):
    samples, _ = spoken
    pieces = of(samples, how._replace(vad=NEVER))
    assert np.array_equal(np.concatenate([piece.samples for piece in pieces]), samples)
    assert max(piece.duration for piece in pieces) <= 30.0
    for piece in pieces[1:]:
        around = samples[max(0, piece.first - 800) : piece.first + 800]
        assert np.abs(around).max() < 0.05


def test_short_recordings(spoken, how):
    samples, bounds = spoken
    start, end = bounds[3]
    short = samples[start - RATE // 2 : end]
    [whole] = of(short, how)
    assert (whole.start, whole.duration) == (0.0, len(short) / RATE)
    assert np.array_equal(whole.samples, short)
    [piece] = of(short, how._replace(vad=ALWAYS))
    assert 0.1 < piece.start < 0.6
    for silent in (np.zeros(RATE, np.float32), np.full(3, 0.001, np.float32), np.empty(0, np.float32)):
        assert of(silent, how) == []
        assert of(silent, how._replace(vad=ALWAYS)) == []
        assert len(of(silent, how._replace(vad=NEVER))) == bool(len(silent))
    assert len(of(short, how, given=[(0.2, 0.3)])) == 1
    assert of(short, how, given=[(-1.0, 0.0)]) == []


def test_prompts_have_speech_and_tones_have_none(how):
    """Every prompt that says something goes through, also when it is quiet; hardly any that does not."""
    try:
        files = corpus.speech("en", longest=8.0)[::6]
    except corpus.Missing as reason:
        pytest.skip(str(reason))
    spoken = [path for path in files if path.parent.name in ("digits", "phonetic", "letters", "dictate", "followme")]
    for gain in (1.0, 0.01):
        lost = [
            path.name
            for path in spoken
            if not of(corpus.read_wave(path).astype(np.float32) * np.float32(gain / 32768), how)
        ]
        assert len(lost) <= len(spoken) // 50, lost
    random = np.random.default_rng(0)
    for level in (1e-4, 1e-2):
        noise = random.normal(0, level, 10 * RATE).astype(np.float32)
        if how.engine == "silero":
            assert of(noise, how) == []
    tone = (0.3 * np.sin(np.arange(5 * RATE) / 6)).astype(np.float32)
    assert how.vad == AUTO
    if how.engine == "silero":
        assert of(tone, how) == []


def test_an_hour_in_flat_memory(spoken):
    """Long recordings are streamed: what is held does not grow with them."""
    samples, _ = spoken
    how = Cutting(30.0)
    cutting.engines.shared("silero", "asr")
    of(samples, how)
    peaks = []
    for repeats in (3, 12):
        tracemalloc.start()
        seconds = 0.0
        for piece in cut(
            lambda repeats=repeats: (b for _ in range(repeats) for b in blocks_of(samples, (RATE,))), how
        ):
            seconds += piece.duration
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert seconds > repeats * len(samples) / RATE * 0.3
    assert peaks[1] < peaks[0] + 3e6
    assert peaks[1] < 60e6


def test_a_recording_that_became_shorter(spoken, monkeypatch):
    samples, _ = spoken
    monkeypatch.setattr(cutting, "KEPT_S", 0.0)
    readings = iter([samples, samples[: 40 * RATE]])
    with pytest.raises(ItemError, match="shorter"):
        list(cut(lambda: [next(readings)], Cutting(30.0)))


def test_a_few_loud_words_in_a_long_quiet_recording_are_heard():
    """Most of it is quiet, so that it is heard louder, too; that clips what was loud enough."""
    from tests.asr import prompts

    words = prompts.prompts(0.6, 1.2, 12)
    noise = np.random.default_rng(0).standard_normal(60 * RATE).astype(np.float32) * np.float32(10 / 32768)
    engine = engines.shared("silero", "asr")
    lost = clearly = 0
    for word in words:
        samples, at = noise.copy(), 25 * RATE
        spoken = corpus.read_wave(word.path)
        samples[at : at + len(spoken)] += spoken
        plain = listen(iter([samples]), engine).probabilities
        heard, _ = cutting._hear(lambda samples=samples: [samples], Cutting(30.0))
        assert (heard.probabilities >= plain).all()
        if (plain > 0.6).any():
            clearly += 1
            lost += not any(piece.first < at + len(spoken) and at < piece.last for piece in cut_of(samples))
    assert clearly >= 6
    assert lost == 0


def cut_of(samples):
    return cut(lambda: iter([samples]), Cutting(30.0))
