"""Recordings, whatever their format, rate, channels and length, as blocks of mono samples at 16 kHz."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import Any, Iterator, Optional

import numpy as np

from pipelines.audio import RATE, lengths, riff
from pipelines.audio.ffmpeg import Ffmpeg
from pipelines.audio.formats import FFMPEG, suffix
from pipelines.audio.resample import Float32, Int16, Resampler, Samples, finite, mono, to_float, to_int16
from pipelines.audio.sources import NotReadableError, Sndfile, Source, Span, Wave
from pipelines.core.errors import ItemError

BLOCK = 1 << 16
"""Frames that are decoded at a time where blocks cannot be handed on as they are."""

_PADDING = 8
"""Bytes at the end of a file that its header may count and its writer have left out."""
_GONE = {errno.ENOENT, errno.ESTALE, errno.ENOTDIR}


class Recording:
    """An open recording: a context manager. Samples come once, in order; memory does not grow with its length.

    Raises ItemError, in one sentence without the path, for what cannot be read: empty, truncated, damaged, not audio,
    unreadable or gone. With `start` (seconds), only what follows; with `length` (seconds), no more than that of it.
    """

    def __init__(self, path: str, start: float = 0.0, length: Optional[float] = None) -> None:
        self._frames = 0
        self._source: Optional[Source] = None
        self._descriptor = _open(path)
        try:
            self._source = self._choose(path)
            self._is_plain = isinstance(self._source, Wave)
            if start or length is not None:
                self._source = Span(self._source, start, length)
        except BaseException:
            self.close()
            raise
        self.rate: int = self._source.rate
        """Samples per second of the recording itself."""
        self.channels: int = self._source.channels
        """Channels of the recording itself."""

    def _choose(self, path: str) -> Source:
        size = os.fstat(self._descriptor).st_size
        if not size:
            raise ItemError("The file is empty (0 bytes).")
        head = self._pread(12, 0)
        header = riff.parse(self._pread, size) if riff.is_wave(head) else None
        if header is not None and header.is_pcm16:
            return Wave(self._descriptor, header)
        self._refuse_cut(size)
        joined = head[:4] == b"OggS" and self._is_joined_ogg(size)  # refuses what is cut, whatever its name
        if suffix(path) not in FFMPEG and not joined:
            with suppress(NotReadableError):
                source = Sndfile(path, size, self._pread)
                if header is None or not header.has_sizes or source.frames >= header.frames:
                    return source
                source.close()  # it believes a 32-bit size that has wrapped, or that was only a marker
                return Wave(self._descriptor, header)
        lengths.refuse_damaged_mp3(self._pread, size)
        return Ffmpeg(path)

    def _refuse_cut(self, size: int) -> None:
        """Raise ItemError for a file that is shorter than its header says, where its decoder would not tell."""
        promised = lengths.promised_bytes(self._pread)
        if promised is not None and promised - size > _PADDING:
            raise ItemError(f"The file is truncated: its header promises {promised} bytes, and {size} are there.")

    def _is_joined_ogg(self, size: int) -> bool:
        """Whether libsndfile would stop before the end. Raises ItemError for a file that is cut."""
        end = lengths.ogg_end(self._pread, size)
        if end is lengths.OggEnd.CUT:
            raise ItemError("The file is truncated: it ends in the middle of an Ogg page.")
        return end is not lengths.OggEnd.WHOLE

    def _pread(self, count: int, offset: int) -> bytes:
        return os.pread(self._descriptor, count, offset)

    def __enter__(self) -> Recording:  # noqa: PYI034 - `Self` is not in Python 3.9
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._source is not None:
            self._source.close()
            self._source = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def duration(self) -> float:
        """Seconds of audio read so far, from the recording's own samples: its duration once it has been read whole."""
        return round(self._frames / self.rate, 6)

    def blocks(self, samples: int) -> Iterator[Int16]:
        """Blocks of exactly `samples` 16-bit samples at 16 kHz; the last one may be shorter. At least one sample."""
        for block in self._sized(samples, integers=True):
            yield to_int16(block)
        self._refuse_silence()

    def float_blocks(self, samples: int) -> Iterator[Float32]:
        """The same as float32 with full scale at ±1, not rounded to 16 bits on the way; all of them are numbers."""
        for block in self._sized(samples, integers=False):
            yield finite(to_float(block))
        self._refuse_silence()

    def _refuse_silence(self) -> None:
        if not self._frames:
            raise ItemError("The file holds no audio (0 samples).")

    def _sized(self, samples: int, integers: bool) -> Iterator[Samples]:
        """Blocks of `samples` at 16 kHz, as integers wherever that loses nothing."""
        if self.rate == RATE and self.channels == 1 and self._is_plain:
            return self._as_it_is(samples)
        return rebuffered(self._pieces(integers), samples)

    def _as_it_is(self, samples: int) -> Iterator[Samples]:
        more = True
        while more:
            block = self._take(samples)
            more = len(block) == samples
            if len(block):
                yield block

    def _pieces(self, integers: bool) -> Iterator[Samples]:
        """Mono, 16 kHz, in pieces of any size. Their limits depend on the recording alone, and so do the samples."""
        resampler = None if self.rate == RATE else Resampler(self.rate)
        last = False
        while not last:
            block = self._take(BLOCK)
            last = len(block) < BLOCK
            piece = mono(block)
            if resampler is not None:
                piece = resampler.push(to_float(piece), last)
            # Rounding here rather than in the buffer halves the memory that long blocks take.
            yield to_int16(piece) if integers else piece

    def _take(self, frames: int) -> Samples:
        if self._source is None:
            raise ValueError("the recording is closed")
        try:
            block = self._source.read(frames)
        except OSError as error:
            raise _unreadable(error) from None
        self._frames += len(block)
        return block


def rebuffered(pieces: Iterator[Samples], samples: int) -> Iterator[Samples]:
    """Samples that come in pieces of any size as blocks of `samples`, the last one shorter."""
    held: list[Any] = []
    have = 0
    for piece in pieces:
        held.append(piece)
        have += len(piece)
        while have >= samples:
            joined = held[0] if len(held) == 1 else np.concatenate(held)
            yield joined[:samples]
            held, have = [joined[samples:]], have - samples
    if have:
        yield held[0] if len(held) == 1 else np.concatenate(held)


def read(path: str) -> tuple[Int16, float]:
    """A whole recording: its samples (mono, 16 kHz, 16 bits) and its duration in seconds. For short ones."""
    with Recording(path) as recording:
        blocks = list(recording.blocks(1 << 20))
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks), recording.duration


def _open(path: str) -> int:
    """A descriptor of a regular file; never waits (a named pipe would block for ever)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unreadable(error) from None
    except ValueError:
        raise ItemError("The path holds a character that no file name can have (NUL).") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ItemError("It is not a regular file but a directory, a pipe or a device.")
    return descriptor


def _unreadable(error: OSError) -> ItemError:
    if error.errno in _GONE:
        return ItemError("The file is no longer there: it was moved or deleted, or its disk is not mounted here.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return ItemError("The file cannot be read: permission denied. Mend its permissions, or ask its owner.")
    return ItemError(f"The file cannot be read: {error.strerror or error}.")
