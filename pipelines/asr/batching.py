"""Pieces in batches: alike in length, as large as the memory holds, each piece's trouble its own.

Padding is computed for nothing, so a batch holds pieces of nearly one length: all that are at hand are sorted, and
divided so that padding and batches cost least together. The more pieces are at hand, the less is padding: an hour of
them or more for batches of minutes.
"""

from __future__ import annotations

import logging
import sys
from threading import Lock
from typing import Callable, Generic, NamedTuple, Optional, Sequence, TypeVar, Union

import numpy as np

from pipelines.asr.sizes import Size
from pipelines.audio import RATE
from pipelines.audio.resample import Float32
from pipelines.core.errors import ItemError, VoxarrayError

log = logging.getLogger(__name__)

T = TypeVar("T")

_MEMORY = ("out of memory", "alloc_failed", "not enough memory", "can't allocate memory")
_LOST = (
    "cuda error",
    "device-side assert",
    "illegal memory access",
    "cuda driver error",
    "unspecified launch failure",
)


class DeviceLostError(Exception):
    """The GPU no longer works in this process, whatever is asked of it: only a new process helps."""


class Padding:
    """Seconds of audio in batches, and seconds computed for them. Thread-safe."""

    def __init__(self) -> None:
        self.real = self.computed = 0.0
        self.batches = self.pieces = 0
        self._lock = Lock()

    def add(self, lengths: Sequence[int], encoder_overhead: Optional[float] = None) -> None:
        """Count a batch of pieces of so many samples. `encoder_overhead`: see `Backend`."""
        groups = [lengths]
        if encoder_overhead is not None:
            downwards = sorted(lengths, reverse=True)
            groups = grouped(downwards, downwards, encoder_overhead)
        with self._lock:
            self.real += sum(lengths) / RATE
            self.computed += sum(max(group) * len(group) for group in groups) / RATE
            self.batches += 1
            self.pieces += len(lengths)

    @property
    def efficiency(self) -> float:
        """Real audio ÷ computed audio; 1 where there is nothing yet."""
        return self.real / self.computed if self.computed else 1.0


class Division(NamedTuple):
    """What batches may hold: padded seconds, pieces; and what a batch costs beyond its audio, in pieces."""

    most_s: float
    most_pieces: int = 512
    overhead: float = 1.0


def divided(lengths: Sequence[int], how: Division) -> list[int]:
    """How many of the pieces go into each batch, given their lengths (samples, at least 1) from the longest down.

    A batch costs its longest piece times (pieces + overhead); the division's sum is the least there is. A piece that
    is longer than a batch may be has one of its own.
    """
    count = len(lengths)
    best = np.zeros(count + 1)
    following = np.zeros(count + 1, np.int64)
    steps = np.arange(1, max(1, how.most_pieces) + 1)
    for first in range(count - 1, -1, -1):
        longest = max(1, lengths[first])
        fitting = max(1, min(len(steps), int(how.most_s * RATE) // longest, count - first))
        cost = longest * (steps[:fitting] + how.overhead) + best[first + 1 : first + fitting + 1]
        # Of equals, the largest batch.
        choice = fitting - 1 - int(np.argmin(cost[::-1]))
        best[first], following[first] = cost[choice], first + choice + 1
    found, at = [], 0
    while at < count:
        found.append(int(following[at]) - at)
        at = int(following[at])
    return found


def grouped(entries: Sequence[T], lengths: Sequence[int], overhead: float) -> list[Sequence[T]]:
    """A batch's entries in groups of nearly one length each, given their lengths from the longest down."""
    found, at = [], 0
    for count in divided(lengths, Division(sys.maxsize, len(lengths), overhead)):
        found.append(entries[at : at + count])
        at += count
    return found


class Batcher(Generic[T]):
    """Takes pieces through a model in batches. Thread-safe if the model is; results depend on a piece alone if its do.

    `transcribe` takes a batch (samples each) and gives one result a piece. `padding` counts what was computed.
    """

    def __init__(
        self,
        transcribe: Callable[[Sequence[Float32]], Sequence[T]],
        size: Size,
        most_pieces: int = 512,
        overhead: float = 1.0,
        encoder_overhead: Optional[float] = None,
    ) -> None:
        self._transcribe, self._size = transcribe, size
        self._most, self._overhead, self._encoder_overhead = most_pieces, overhead, encoder_overhead
        self.padding = Padding()

    def run(self, pieces: Sequence[Float32]) -> list[Union[T, Exception]]:
        """Each piece's result or why there is none, in their order. The longest pieces go first.

        Raises VoxarrayError where the machine is at fault, and DeviceLostError.
        """
        found: dict[int, Union[T, Exception]] = {}
        waiting = sorted(range(len(pieces)), key=lambda place: (-len(pieces[place]), place))
        while waiting:
            size = self._size.now
            how = Division(size, self._most, self._overhead)
            for count in divided([len(pieces[place]) for place in waiting], how):
                batch = waiting[:count]
                results = self._attempt([pieces[place] for place in batch])
                if results is not None:
                    found.update(zip(batch, results))
                    waiting = waiting[count:]
                if self._size.now != size:
                    break
        return [found[place] for place in range(len(pieces))]

    def _attempt(self, batch: list[Float32]) -> Optional[list[Union[T, Exception]]]:
        """One batch; where it fails, its halves, down to single pieces. None: it was too large, and `size` knows."""
        lengths = [len(piece) for piece in batch]
        padded_s = max(lengths) * len(lengths) / RATE
        try:
            results = list(self._transcribe(batch))
            if len(results) != len(batch):
                raise ValueError(f"the model gave {len(results)} results for {len(batch)} pieces")
        except VoxarrayError:
            raise
        except Exception as error:  # noqa: BLE001 - a piece's trouble, whatever it is, must not touch the others
            # Nothing is tried again in here: the error's traceback keeps the batch's tensors in the device's memory.
            fault = _freed(error)
        else:
            self.padding.add(lengths, self._encoder_overhead)
            self._size.fitted(padded_s)
            return list(results)
        if is_out_of_memory(fault):
            _empty_cache()
            if len(batch) > 1:
                self._size.failed(padded_s)
                return None
            fault = ItemError(f"The memory does not hold a piece of {padded_s:.1f} s, even alone ({fault}).")
        elif is_device_lost(fault):
            raise DeviceLostError(f"The GPU no longer answers ({fault}); a new process has to go on.") from None
        if len(batch) == 1:
            return [fault]
        log.debug("A batch of %d failed (%r); its halves follow.", len(batch), fault)
        return self._halves(batch)

    def _halves(self, batch: list[Float32]) -> list[Union[T, Exception]]:
        half = len(batch) // 2
        found: list[Union[T, Exception]] = []
        for part in (batch[:half], batch[half:]):
            results = self._attempt(part)
            found += self._halves(part) if results is None else results
        return found


def _freed(error: Exception) -> Exception:
    """The error without what its traceback and its causes hold on to."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def is_out_of_memory(error: Optional[BaseException]) -> bool:
    """Whether a batch was too large for the memory of the device or of the machine."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _MEMORY)


def is_device_lost(error: BaseException) -> bool:
    """Whether the GPU is of no more use to this process. A piece may have done that; which one, only a retry shows."""
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _LOST)


def _empty_cache() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
