"""What recordings are decoded with: our own reader for WAVE (16 bits, or long), and libsndfile. See also `ffmpeg`."""

from __future__ import annotations

import os
from typing import Any, Callable, Optional, Protocol

import numpy as np
import numpy.typing as npt

from pipelines.audio import lengths
from pipelines.audio.resample import Samples
from pipelines.audio.riff import FLOAT, PCM, PRead, WaveHeader
from pipelines.core.errors import ItemError


class Source(Protocol):
    """A decoder, at the recording's own rate and channels."""

    rate: int
    channels: int

    def read(self, frames: int) -> Samples:
        """The next frames: as many as asked for, fewer at the end only. Shape (frames,) or (frames, channels)."""
        ...

    def skip(self, frames: int) -> None:
        """Pass over the next frames, or over what is left if that is less."""
        ...

    def close(self) -> None:
        """Free what was opened."""
        ...


Bytes = npt.NDArray[np.uint8]


def _of_24_bits(data: Bytes) -> Samples:
    wide = np.zeros((len(data) // 3, 4), np.uint8)
    wide[:, 1:] = data.reshape(-1, 3)
    return _of_32_bits(wide.reshape(-1))


def _of_32_bits(data: Bytes) -> Samples:
    samples: Samples = data.view("<i4").astype(np.float32)
    samples *= np.float32(2.0**-31)
    return samples


_NUMBERS: dict[tuple[int, int], Callable[[Bytes], Samples]] = {
    (PCM, 8): lambda data: (data.astype(np.int16) - 128) * np.int16(256),
    (PCM, 16): lambda data: data.view("<i2"),
    (PCM, 24): _of_24_bits,
    (PCM, 32): _of_32_bits,
    (FLOAT, 32): lambda data: data.view("<f4"),
    (FLOAT, 64): lambda data: data.view("<f8").astype(np.float32),
}
"""From bytes to samples, by what a header says they are and their bits."""


class NotReadableError(Exception):
    """This decoder does not know the format, or would not read all of the file; another may."""


class Wave:
    """WAVE files whose samples are numbers, read straight into arrays: of 16-bit integers, or of floats."""

    def __init__(self, descriptor: int, header: WaveHeader) -> None:
        self.rate, self.channels = header.rate, header.channels
        numbers = _NUMBERS.get((header.format, header.bits))
        if numbers is None:
            raise ItemError(
                "The WAVE file is longer than its 32-bit header can say. Convert it: "
                "`ffmpeg -ignore_length 1 -i IN -c copy -rf64 auto OUT.wav`."
            )
        self._numbers = numbers
        self._descriptor = descriptor
        self._frame = header.channels * header.bits // 8
        self._offset, self._left = header.offset, header.frames

    def read(self, frames: int) -> Samples:
        """The next frames."""
        frames = min(frames, self._left)
        data: Bytes = np.empty(frames * self._frame, np.uint8)
        done = 0
        while done < data.nbytes:
            count = os.preadv(self._descriptor, [data.data[done:]], self._offset + done)
            if not count:
                raise ItemError("The WAVE file became shorter while it was being read.")
            done += count
        self._offset += done
        self._left -= frames
        samples = self._numbers(data)
        return samples if self.channels == 1 else samples.reshape(frames, self.channels)

    def skip(self, frames: int) -> None:
        """Pass over the next frames."""
        frames = min(frames, self._left)
        self._offset += self._frame * frames
        self._left -= frames

    def close(self) -> None:
        """Nothing was opened."""


class Sndfile:
    """Whatever libsndfile reads: flac, ogg, opus, mp3, aiff, and the other kinds of WAVE."""

    def __init__(self, path: str, size: int, pread: PRead) -> None:
        import soundfile

        self._error: Any = soundfile.LibsndfileError
        try:
            # The path, not the descriptor: some versions of libsndfile close a descriptor that is not theirs.
            self._file = soundfile.SoundFile(path)
        except (soundfile.LibsndfileError, TypeError) as error:
            raise NotReadableError(_reason(error)) from None
        try:
            self.frames = _promised(self._file, size, pread)
        except BaseException:
            self._file.close()
            raise
        self.rate, self.channels = int(self._file.samplerate), int(self._file.channels)
        self._type = "int16" if self._file.subtype in ("PCM_16", "PCM_S8", "PCM_U8") else "float32"
        self._done = 0

    def read(self, frames: int) -> Samples:
        """The next frames."""
        try:
            samples: Samples = self._file.read(frames, dtype=self._type)
        except self._error as error:
            raise ItemError(
                f"The file is damaged or truncated: {_reason(error)} (after {self._done / self.rate:.1f} s)."
            ) from None
        self._done += len(samples)
        if len(samples) < frames and self._done < self.frames:
            raise ItemError(
                f"The file is truncated: its header promises {self.frames / self.rate:.3f} s of audio, and "
                f"{self._done / self.rate:.3f} s are there."
            )
        return samples

    def skip(self, frames: int) -> None:
        """Pass over the next frames."""
        frames = min(frames, self.frames - self._done)
        try:
            self._file.seek(self._done + frames)
        except self._error as error:
            raise ItemError(f"The file is damaged or truncated: {_reason(error)} (seeking in it).") from None
        self._done += frames

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Span:
    """A stretch of a recording: `duration` seconds from `start` on, or all that follows where it is None."""

    def __init__(self, source: Source, start: float, duration: Optional[float]) -> None:
        self.rate, self.channels = source.rate, source.channels
        self._source = source
        self._start = start
        self._left: Optional[int] = None if duration is None else round((start + duration) * self.rate) - self._first
        source.skip(self._first)

    @property
    def _first(self) -> int:
        return round(self._start * self.rate)

    def read(self, frames: int) -> Samples:
        """The next frames. Raises ItemError where the recording ends more than 50 ms before the stretch does."""
        wanted = frames if self._left is None else min(frames, self._left)
        samples = self._source.read(wanted)
        if self._left is not None:
            self._left -= len(samples)
            if len(samples) < wanted and self._left > self.rate // 20:
                raise ItemError(
                    f"The item ends {self._left / self.rate:.3f} s after its recording does: its offset or duration "
                    "does not belong to this file, or the file became shorter."
                )
        return samples

    def skip(self, frames: int) -> None:
        """Pass over the next frames."""
        frames = frames if self._left is None else min(frames, self._left)
        self._source.skip(frames)
        self._left = None if self._left is None else self._left - frames

    def close(self) -> None:
        """Close the recording."""
        self._source.close()


def _promised(file: Any, size: int, pread: PRead) -> int:
    """The frames that the header promises. Raises NotReadableError where libsndfile would stop at a wrong length."""
    frames = int(file.frames)
    if file.subtype.startswith("MPEG_LAYER") and file.format != "MP3":
        raise NotReadableError("its length is only estimated")  # MP3 in WAVE
    if not 0 < frames < 1 << 62:
        raise NotReadableError("it does not say how long it is")  # 0: a writer that was killed before it could
    if file.format == "MP3" and not lengths.mp3_is_sure(pread, size):
        raise NotReadableError("its length is only estimated")
    return frames


def _reason(error: Exception) -> str:
    text = str(error).rpartition("': ")[2].strip() or type(error).__name__
    return text.removeprefix("Error : ").rstrip(".")
