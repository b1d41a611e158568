"""Headers of RIFF/WAVE files: plain, WAVE_FORMAT_EXTENSIBLE, RF64 and BW64, finished or left open by their writer.

Sources: Microsoft's "Multimedia Programming Interface and Data Specifications 1.0" (RIFF), EBU Tech 3306 (RF64).
"""

from __future__ import annotations

import struct
from typing import Callable, NamedTuple, Optional

from pipelines.core.errors import ItemError

PCM = 1
FLOAT = 3
_ALAW = 6
_MULAW = 7
_EXTENSIBLE = 0xFFFE
_UNKNOWN = 0xFFFFFFFF
_STREAMED = 0x7FFF0000
"""Data sizes from here on are put by writers that could not know them (SoX, ffmpeg), unless the bytes are there.

SoX puts 0x7FFFF000, rounded down to a whole number of frames.
"""
_PADDING = 1 << 16

PRead = Callable[[int, int], bytes]
"""(number of bytes, offset) → the bytes there; fewer at the end of the file."""

_Form = tuple[int, int, int, int]
"""Format tag, channels, rate, bits a sample."""


class WaveHeader(NamedTuple):
    """Where the samples of a WAVE file lie and what they are. `frames` counts samples of one channel."""

    format: int
    channels: int
    rate: int
    bits: int
    offset: int
    frames: int

    @property
    def is_pcm16(self) -> bool:
        """Whether the samples are 16-bit integers, little endian, as they are used."""
        return self.format == PCM and self.bits == 16

    @property
    def has_sizes(self) -> bool:
        """Whether every sample takes the same number of bytes, so that `frames` is right."""
        return self.format in (PCM, FLOAT, _ALAW, _MULAW)


def is_wave(head: bytes) -> bool:
    """Whether a file that begins with `head` (12 bytes or more) is a WAVE file with a little-endian header."""
    return head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE"


def parse(pread: PRead, size: Optional[int]) -> WaveHeader:
    """Read the header. `size` is the file's, in bytes (None for a pipe: then `frames` may be more than there are).

    Raises ItemError for a header without samples behind it, and for fewer bytes of samples than it promises.
    """
    (riff_size,) = struct.unpack("<4xI", pread(8, 0))
    form, wide, offset, length = _chunks(pread)
    if form is None:
        raise ItemError("The WAVE file does not say what its samples are (it has no fmt chunk before the data).")
    tag, channels, rate, bits = form
    frame = channels * max(1, bits // 8)
    there = None if size is None else size - offset
    length = _data_bytes(length, wide, there, riff_size, size)
    if there is None:
        return WaveHeader(tag, channels, rate, bits, offset, length // frame)
    said = f"{length // frame / rate:.3f} s of audio"
    if length - there >= frame:
        raise ItemError(
            f"The WAVE file is truncated: its header promises {said}, and {max(there, 0) // frame / rate:.3f} s are "
            "there."
        )
    behind = pread(_PADDING, offset + length) if there > length else b""
    if behind and not _is_chunk(behind, length):
        if wide is None and length >= _STREAMED:
            length = there  # a marker, not a size
        elif there - length > frame * rate and any(behind):
            raise ItemError(
                f"The WAVE file's header says {said}, and {(there - length) // frame / rate:.3f} s follow that are no "
                "chunk: likely the recorder was killed. Mend the header: "
                "`ffmpeg -ignore_length 1 -i IN -c copy OUT.wav`."
            )
    return WaveHeader(tag, channels, rate, bits, offset, min(length, there) // frame)


def _chunks(pread: PRead) -> tuple[Optional[_Form], Optional[int], int, int]:
    """What the fmt chunk says, the size of the data by the ds64 chunk, where the data begins, and its size."""
    form: Optional[_Form] = None
    wide: Optional[int] = None
    offset = 12
    while True:
        head = pread(8, offset)
        if len(head) < 8:
            raise ItemError("The WAVE file is truncated: it ends before its samples begin.")
        name, length = struct.unpack("<4sI", head)
        if not _is_name(name):
            raise ItemError("The WAVE file is damaged: bytes that are no chunk stand before its samples.")
        offset += 8
        if name == b"data":
            return form, wide, offset, length
        if name == b"ds64":
            (wide,) = struct.unpack("<8xQ", _exactly(pread, 16, offset))
        elif name == b"fmt ":
            form = _format(_exactly(pread, min(length, 40), offset))
        offset = _next_chunk(pread, offset, length)


def _exactly(pread: PRead, count: int, offset: int) -> bytes:
    data = pread(count, offset)
    if len(data) < count:
        raise ItemError("The WAVE file is truncated: it ends before its samples begin.")
    return data


def _format(data: bytes) -> _Form:
    """What a fmt chunk says."""
    if len(data) < 16:
        raise ItemError("The WAVE file is damaged: its fmt chunk is too short.")
    tag, channels, rate, align, bits = struct.unpack("<HHI4xHH", data[:16])
    if tag == _EXTENSIBLE and len(data) >= 26:
        (tag,) = struct.unpack("<H", data[24:26])
    if not channels or not rate:
        raise ItemError(f"The WAVE file is damaged: its header says {channels} channels at {rate} Hz.")
    if tag in (PCM, FLOAT) and bits >= 8:
        # 24 significant bits may lie in 32: what matters here is how far it is from one sample to the next.
        bits = max(bits, align // channels * 8) if align % channels == 0 else bits
    return tag, channels, rate, bits


def _next_chunk(pread: PRead, offset: int, length: int) -> int:
    """The offset of the chunk after one of `length` bytes. Chunks are padded to even sizes; not every writer does."""
    end = offset + length
    if length % 2 and not _is_name(pread(4, end + 1)) and _is_name(pread(4, end)):
        return end
    return end + length % 2


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and name.isascii() and name.decode("ascii").isprintable()


def _is_chunk(behind: bytes, length: int) -> bool:
    """Whether what lies behind `length` bytes of samples is a chunk, or a tag, rather than more samples."""
    return _is_name(behind[:4]) or behind[:3] == b"ID3" or (bool(length % 2) and _is_name(behind[1:5]))


def _data_bytes(length: int, wide: Optional[int], there: Optional[int], riff_size: int, size: Optional[int]) -> int:
    """The bytes of samples: what the header says, or all to the end where its writer could not know."""
    if wide is not None and length == _UNKNOWN and 0 < wide < 1 << 62:
        return wide
    if there is None:
        return length if 0 < length < _STREAMED else 1 << 62
    if length > there and length >= _STREAMED:
        return there
    if length == 0 and riff_size + 8 != size:
        return there
    if there >= 1 << 32 and length < there:
        return there  # the 32-bit size of a file beyond 4 GiB has wrapped
    return length
