"""Recordings of any length cut into pieces that a model takes: at pauses, without silence, with their exact times.

A long recording is read twice: for what it is worth (speech, levels), and for its pieces; so no more of it is ever
held than a block and a piece. `pipelines.voice` finds the speech, unless it is given.
"""

from __future__ import annotations

from typing import Callable, Iterable, Iterator, NamedTuple, Optional, Sequence

import numpy as np

from pipelines.asr.packing import Limits, Track, packed, tidy
from pipelines.audio import RATE
from pipelines.audio.read import rebuffered
from pipelines.audio.resample import FULL_SCALE, Float32, Samples, to_float
from pipelines.core.errors import ItemError
from pipelines.voice import engines
from pipelines.voice.segments import Rules, samples_of
from pipelines.voice.speech import Heard, listen

AUTO, ALWAYS, NEVER = "auto", "always", "never"
VAD = (AUTO, ALWAYS, NEVER)
"""Whether recordings that a model would take whole are cut at pauses, too: `auto` leaves them whole, but hears whether
there is speech in them at all; `never` looks for no speech, and cuts long recordings where they are quietest."""

Audio = Callable[[], Iterable[Float32]]
"""A recording: at each call its samples afresh, float32 at 16 kHz with full scale at ±1, in blocks of any sizes."""

Segments = Sequence[tuple[float, float]]
"""Speech as (start, end) in seconds from the recording's beginning."""

KEPT_S = 300.0
"""Recordings of so many seconds are kept from the first reading to the second."""
QUIET_DB, LOUDER_DB = 66.0, 40.0
"""A recording whose loudest percent of frames stays below this level (dB above the step of 16-bit integers; full
scale is 90) is heard louder, by so much at most: engines miss speech that is 30 dB quieter than usual, and noise
that is made as loud they still tell from speech."""
_HOP = 512
_BLOCK = 1 << 20


class Cutting(NamedTuple):
    """How recordings are cut. Times in seconds."""

    longest_s: float
    """The longest piece that the model takes."""
    pack_s: float = 40.0
    """The longest piece that is made where a recording has to be cut."""
    vad: str = AUTO
    engine: str = "silero"
    rules: Rules = Rules(onset=0.5, offset=0.35, min_speech=RATE // 10, min_silence=RATE // 10)
    """What is speech."""
    gap_s: float = 2.0
    """Silence up to which neighbours share a piece."""
    pad_s: float = 0.2
    """Silence kept around speech."""

    @property
    def limits(self) -> Limits:
        """The same in samples."""
        longest = min(samples_of(self.longest_s), samples_of(self.pack_s))
        return Limits(longest, samples_of(self.gap_s), min(samples_of(self.pad_s), longest // 4))


class Piece(NamedTuple):
    """A stretch of a recording: its first sample there, the sample after its last, and the samples themselves."""

    first: int
    last: int
    samples: Float32

    @property
    def start(self) -> float:
        """Seconds from the recording's beginning."""
        return self.first / RATE

    @property
    def end(self) -> float:
        """Seconds from the recording's beginning."""
        return self.last / RATE

    @property
    def duration(self) -> float:
        """Seconds."""
        return (self.last - self.first) / RATE


def cut(audio: Audio, how: Cutting, given: Optional[Segments] = None) -> Iterator[Piece]:
    """The pieces of a recording, in order; none where there is no speech. `given`: where speech is, if that is known.

    Together they hold all speech, each sample of it once. They depend on the samples alone, not on the blocks. May be
    called from several threads at once. Memory: the recording if it lasts up to KEPT_S or `longest_s`, else a block
    and a piece. Raises EnvironmentNotFit without the engine's packages, and what `audio` raises.
    """
    kept = _Kept(audio, max(how.longest_s, KEPT_S))
    whole = kept.whole_if(how.longest_s)
    if whole is not None and how.vad != ALWAYS:
        if len(whole) and (how.vad == NEVER or _holds_speech(whole, how, given)):
            yield Piece(0, len(whole), whole)
        return
    spans = _spans(kept, how, given)
    yield from extracted(kept(), spans)


def _holds_speech(samples: Float32, how: Cutting, given: Optional[Segments]) -> bool:
    """Whether there is any: one frame is enough."""
    if given is not None:
        return bool(len(tidy(given, len(samples))))
    heard, _ = _hear(lambda: [samples], how)
    return bool((heard.probabilities > how.rules.onset).any())


def _spans(audio: Audio, how: Cutting, given: Optional[Segments]) -> list[tuple[int, int]]:
    """Where the pieces lie."""
    if how.vad != NEVER and given is None:
        heard, track = _hear(audio, how)
        return packed(heard.segments(how.rules), heard.samples, how.limits, track)
    levels: list[Float32] = []
    length = 0
    for block in _measured(rebuffered(iter(audio()), _BLOCK), _HOP, levels):
        length += len(block)
    speech = tidy([(0.0, length / RATE)] if how.vad == NEVER or given is None else given, length)
    return packed(speech, length, how.limits, Track(_HOP, _joined(levels)))


def _hear(audio: Audio, how: Cutting) -> tuple[Heard, Track]:
    """What the engine hears, and how weak the recording is where."""
    engine = engines.shared(how.engine, "asr")
    parts: list[Float32] = []
    heard = listen(_measured(rebuffered(iter(audio()), engine.block), engine.hop, parts), engine)
    level = _joined(parts)
    lacking = min(LOUDER_DB, QUIET_DB - float(np.percentile(level, 99))) if len(level) else 0.0
    if lacking > 0:
        gain = np.float32(10 ** (lacking / 20))
        louder = listen((to_float(block) * gain for block in rebuffered(iter(audio()), engine.block)), engine)
        # Where little of a long recording is speech, that is loud enough by itself, and the gain only clips it.
        heard = heard._replace(probabilities=np.maximum(heard.probabilities, louder.probabilities))
    return heard, Track(engine.hop, level, heard.probabilities)


def _measured(blocks: Iterator[Samples], hop: int, levels: list[Float32]) -> Iterator[Samples]:
    """The blocks, while the level of each `hop` samples (dB above a 16-bit integer's step) is added to `levels`."""
    for block in blocks:
        scaled = to_float(block) * FULL_SCALE
        if len(scaled) % hop:
            scaled = np.pad(scaled, (0, -len(scaled) % hop))
        frames = scaled.reshape(-1, hop)
        power = np.einsum("ij,ij->i", frames, frames) / np.float32(hop)
        levels.append(10 * np.log10(power + np.float32(1)))
        yield block


def _joined(parts: list[Float32]) -> Float32:
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def extracted(blocks: Iterable[Float32], spans: Sequence[tuple[int, int]]) -> Iterator[Piece]:
    """The pieces at `spans` (in order, disjoint) of a recording that comes as blocks. Reads no further than needed.

    Raises ItemError where the recording ends before a piece does.
    """
    waiting = iter(spans)
    span = next(waiting, None)
    parts: list[Float32] = []
    at = 0
    for block in blocks:
        while span is not None and span[0] < at + len(block):
            parts.append(block[max(0, span[0] - at) : span[1] - at])
            if span[1] > at + len(block):
                break
            # A copy: a view would keep the whole block in memory for as long as the piece waits.
            yield Piece(span[0], span[1], np.concatenate(parts))
            parts = []
            span = next(waiting, None)
        if span is None:
            return
        at += len(block)
    if span is not None:
        raise ItemError("The recording became shorter while it was being read.")


class _Kept:
    """A recording that is read once if it lasts no more than `most_s` seconds, and afresh each time otherwise."""

    def __init__(self, audio: Audio, most_s: float) -> None:
        self._audio, self._most = audio, most_s * RATE
        self._rest: Optional[Iterator[Float32]] = iter(audio())
        """What of the first reading is still to come; None once all blocks are kept."""
        self._blocks: list[Float32] = []

    def whole_if(self, longest_s: float) -> Optional[Float32]:
        """All samples, if they last no longer than that."""
        have = 0
        for block in self._rest or ():
            self._blocks.append(block)
            have += len(block)
            if have > longest_s * RATE:
                return None
        self._rest = None
        return _joined(self._blocks)

    def __call__(self) -> Iterator[Float32]:
        if self._rest is None:
            return iter(self._blocks)
        begun, self._blocks = self._blocks, []
        return self._first_reading(begun, self._rest) if begun else iter(self._audio())

    def _first_reading(self, kept: list[Float32], rest: Iterator[Float32]) -> Iterator[Float32]:
        yield from kept
        have = sum(map(len, kept))
        for block in rest:
            have += len(block)
            kept = [*kept, block] if have <= self._most else []
            yield block
        if have <= self._most:
            self._blocks, self._rest = kept, None
