"""Speech in audio that comes as blocks: what an engine hears, and the segments that rules make of it."""

from __future__ import annotations

from typing import Iterable, Iterator, NamedTuple, Union

from pipelines.audio import RATE
from pipelines.audio.read import rebuffered
from pipelines.audio.resample import Float32, Int16, Samples, to_int16
from pipelines.voice import engines
from pipelines.voice.engines import Engine
from pipelines.voice.segments import Bounds, Rules, segments


class Heard(NamedTuple):
    """What an engine made of a recording: a probability of speech for every `hop` samples."""

    probabilities: Float32
    hop: int
    samples: int
    """Samples of the recording at 16 kHz."""

    @property
    def length(self) -> int:
        """Samples that probabilities cover: an engine may leave out what does not fill its last frame."""
        return min(len(self.probabilities) * self.hop, self.samples)

    def segments(self, rules: Rules) -> Bounds:
        """The segments of speech, in samples."""
        return segments(self.probabilities, self.hop, self.length, rules)


def speech_segments(
    blocks: Iterable[Samples], engine: Union[str, Engine], rules: Rules, environment: str = "vad"
) -> list[tuple[float, float]]:
    """The segments of speech in mono audio at 16 kHz, as (start, end) in seconds, in order.

    `blocks` are of any sizes, int16 or float32 with full scale at ±1; the result does not depend on the sizes.
    `engine` is a name of `pipelines.voice.ENGINES` (loaded once a process), or one that `engines.load` gave. May be
    called from several threads at once. Memory: some blocks of the engine's own size, and 4 bytes a frame. Raises
    EnvironmentNotFit, which names the `environment` to mend.
    """
    chosen = engines.shared(engine, environment) if isinstance(engine, str) else engine
    bounds = listen(rebuffered(iter(blocks), chosen.block), chosen).segments(rules)
    return [(start / RATE, end / RATE) for start, end in bounds.tolist()]


def listen(blocks: Iterable[Samples], engine: Engine) -> Heard:
    """What the engine hears in a recording. `blocks` hold `engine.block` samples each, the last one any number."""
    counted = _Counted(blocks)
    probabilities = engine.probabilities(counted)
    return Heard(probabilities, engine.hop, counted.samples)


class _Counted:
    """Blocks handed on as 16-bit integers, and the samples in them."""

    def __init__(self, blocks: Iterable[Samples]) -> None:
        self._blocks = blocks
        self.samples = 0

    def __iter__(self) -> Iterator[Int16]:
        for block in self._blocks:
            self.samples += len(block)
            yield to_int16(block)
