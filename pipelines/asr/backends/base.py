"""What every recogniser offers, and the guard that all of them share. Imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Mapping, NamedTuple, Optional, Protocol, Sequence

from pipelines.audio import RATE
from pipelines.core.errors import UsageError

if TYPE_CHECKING:
    from pipelines.audio.resample import Float32

ONE_BY_ONE, IN_BATCHES = (4, 120.0), (64, 480.0)
"""Of recognisers that gain little or nothing by batches on a CPU, and of those that gain much."""

Settings = Mapping[str, Any]
"""Options of a model: `precision` (auto, fp32, bf16), `language`, `prompt` (SALM), `decoder` (hybrids: rnnt, ctc)."""

PRECISIONS = ("auto", "fp32", "bf16")
SHORTEST_S = 0.1
"""Pieces shorter than this hold no word, and some models cannot take them: their text is empty."""


class Word(NamedTuple):
    """A word and when it is said, in seconds from the beginning of its piece."""

    start: float
    end: float
    word: str


class Transcript(NamedTuple):
    """The text of one piece; its words where they were asked for and the model gives them; what is odd about it."""

    text: str
    words: Optional[list[Word]] = None
    flagged: Optional[str] = None


class Backend(Protocol):
    """A loaded recogniser."""

    longest_s: float
    """Pieces are at most so long."""
    has_words: bool
    """Whether it gives the times of words."""
    on_gpu: bool
    batch_s: float
    """Padded seconds of a batch to begin with on this device."""
    concurrency: int
    """`transcribe` may be called from so many threads at once."""
    together: tuple[int, float]
    """Items, and seconds of audio, that are taken at once on a CPU: batches are made of them, and a killed process
    loses what it had in hand."""
    overhead: float
    """What a batch costs beyond its audio, in pieces of it."""

    @property
    def encoder_overhead(self) -> Optional[float]:
        """The same of its encoder alone, if that takes a batch in groups of nearly one length; None: it takes all."""
        ...

    def transcribe(self, pieces: Sequence[Float32], words: bool = False) -> list[Transcript]:
        """The transcripts of one batch of pieces (samples,) at 16 kHz ±1, each of its own piece alone.

        Raises torch.cuda.OutOfMemoryError where the GPU's memory does not hold the batch.
        """
        ...

    def close(self) -> None:
        """Free what was loaded."""
        ...


def refuse(settings: Settings, name: str, model: str) -> None:
    """UsageError where a setting is given that a model of this kind cannot honour."""
    if settings.get(name) is not None:
        raise UsageError(
            f"--{name} {settings[name]} means nothing to the model {model}. Leave it out, or name another model."
        )


def audible(
    pieces: Sequence[Float32], words: bool, recognise: Callable[[list[Float32]], list[Transcript]]
) -> list[Transcript]:
    """What `recognise` says of the pieces that hold any sound; the others are empty without being asked about.

    Models that were trained on speech alone invent a sentence for pure silence, and fail on a handful of samples.
    """
    found = [Transcript("", [] if words else None)] * len(pieces)
    places = [place for place, piece in enumerate(pieces) if len(piece) >= SHORTEST_S * RATE and piece.any()]
    if places:
        for place, transcript in zip(places, recognise([pieces[place] for place in places])):
            found[place] = transcript
    return found


def within(words: Sequence[Word], seconds: float) -> list[Word]:
    """Words whose times lie inside their piece, in whole milliseconds."""
    kept = []
    seconds = int(seconds * 1000) / 1000
    for word in words:
        start = min(max(float(word.start), 0.0), seconds)
        kept.append(Word(round(start, 3), round(min(max(float(word.end), start), seconds), 3), word.word))
    return kept
