"""How long a file is by its own account, where its decoder would believe too little or too much.

libsndfile stops at the length that a file's header gives or that it estimates itself, without a word: what lies behind
is lost. Sources: RFC 3533 (Ogg pages), the ID3v2.4 structure, the Xing header as LAME writes it.
"""

from __future__ import annotations

import re
import struct
from enum import Enum
from math import prod
from typing import Optional

from pipelines.audio.riff import PRead
from pipelines.core.errors import ItemError

_TRAILER = 4096
"""Bytes (ID3v1, a small APE tag) that may follow the last frame of an MP3 file; more may be another recording."""
_UNKNOWN = 0xFFFFFFFF
_STREAMED_AIFF = 0x7EFF0000
"""Sizes from here on, in a small range, are those of SoX where it writes AIFF to a pipe: it could not know them."""
_ZEROS = 1 << 14
_BLOCK = 1 << 20
_TAG_HEAD = 32
_BITRATES_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_BITRATES_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


def mp3_is_sure(pread: PRead, size: int) -> bool:
    """Whether an MP3 file's header (Xing or Info) gives its length, and nothing more is joined on behind it."""
    start = 0
    head = pread(10, 0)
    if head[:3] == b"ID3" and len(head) == 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0)))
    frame = pread(4096, start)
    place = max(frame.find(b"Xing"), frame.find(b"Info"))
    if place < 0 or len(frame) < place + 16:
        return False
    flags, _, length = struct.unpack(">III", frame[place + 4 : place + 16])
    # Flag 1: the number of frames stands here; 2: so does the number of bytes.
    return bool(flags & 3 == 3 and size - start <= length + _TRAILER)


def promised_bytes(pread: PRead) -> Optional[int]:
    """The size of a whole AIFF, AU, CAF, W64 or NIST SPHERE file, by its header; None where that does not say."""
    head = pread(24, 0)
    if len(head) < 24:
        return None
    if head[:4] == b"FORM":
        (size,) = struct.unpack(">4xI", head[:8])
        return None if size in (0, _UNKNOWN) or _STREAMED_AIFF <= size < _STREAMED_AIFF + (1 << 17) else 8 + int(size)
    if head[:4] == b".snd":
        offset, size = struct.unpack(">4xII", head[:12])
        return None if size == _UNKNOWN else int(offset + size)
    if head[:4] == b"riff":
        (size,) = struct.unpack("<Q", head[16:24])
        return int(size) if 0 < size < 1 << 62 else None
    if head[:4] == b"caff":
        return _caf_bytes(pread)
    return _sphere_bytes(pread(1024, 0)) if head[:7] == b"NIST_1A" else None


def _caf_bytes(pread: PRead) -> Optional[int]:
    position = 8
    for _ in range(1000):
        head = pread(12, position)
        if len(head) < 12:
            break
        name, size = struct.unpack(">4sq", head)
        if size < 0:  # -1: to the end
            break
        position += 12 + int(size)
        if name == b"data":
            return position
    return None


def _sphere_bytes(head: bytes) -> Optional[int]:
    head = head.partition(b"end_head")[0]
    fields = dict(re.findall(rb"^(sample_count|channel_count|sample_n_bytes) -\w+ (\d+)", head, re.MULTILINE))
    size = head[8:16].strip()
    if len(fields) < 3 or not size.isdigit() or b"embedded" in head:  # "embedded-shorten": compressed
        return None
    return int(size) + prod(map(int, fields.values()))


class OggEnd(Enum):
    """How an Ogg file ends, seen from its pages."""

    WHOLE = "whole"
    CUT = "in the middle of a page"
    CHAINED = "in another recording than it began with"
    LOST = "behind bytes that are no pages"


def ogg_end(pread: PRead, size: int) -> OggEnd:
    """Walk over an Ogg file's page headers (Vorbis, Opus, FLAC, Speex)."""
    position, begun = 0, False
    while position < size:
        head = pread(27 + 255, position)
        if head[:4] != b"OggS"[: len(head)]:
            return OggEnd.LOST
        lacing = head[27 : 27 + head[26]] if len(head) > 27 else b""
        if len(head) <= 27 or len(lacing) < head[26]:
            return OggEnd.CUT
        first_page = bool(head[5] & 2)
        if first_page and begun:
            return OggEnd.CHAINED
        begun = begun or not first_page
        position += 27 + head[26] + sum(lacing)
    return OggEnd.WHOLE if position == size else OggEnd.CUT


def refuse_damaged_mp3(pread: PRead, size: int) -> None:
    """Walk over the frame headers of a file that begins as MP3 (layer III). Decoders pass over what is no frame.

    Raises ItemError for bytes of a frame or more that are neither frames nor tags, and for a last frame that is cut.
    """
    known: dict[bytes, tuple[int, float]] = {}
    block, start = b"", 0
    position, length, seconds = 0, 0, 0.0
    while position < size:
        at = position - start
        if not 0 <= at <= len(block) - _TAG_HEAD:
            block, start, at = pread(_BLOCK, position), position, 0
        head = block[at : at + 4]
        frame = known.get(head) or known.setdefault(head, _mp3_frame(head))
        if frame[0] and (length or _is_mp3(pread, position, size)):
            length = frame[0]
            position += length
            seconds += frame[1]
            continue
        after = _behind_tag(pread, block[at : at + _TAG_HEAD], position) or (
            length and _resumed(pread, position, length, size)
        )
        if not after:
            if length and not _is_free(head) and not _is_trailer(pread, position, size):
                raise ItemError(
                    f"The file is damaged: bytes that are no MP3 frames after {seconds:.1f} s. To use what can be "
                    "decoded of it, convert it first: `ffmpeg -i IN OUT.wav`."
                )
            return
        position = min(after, size)
    if length and position > size:
        raise ItemError(f"The file is truncated: it ends in the middle of an MP3 frame, after {seconds:.1f} s.")


def _mp3_frame(head: bytes) -> tuple[int, float]:
    """The bytes and the seconds of the frame with this header (4 bytes); 0 for what is no frame of layer III."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return 0, 0.0
    version, bitrate, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or bitrate in (0, 15) or rate == 3:
        return 0, 0.0
    hertz = (44100, 48000, 32000)[rate] >> (0, 1, 2)[(3, 2, 0).index(version)]
    slots, rates = (144, _BITRATES_1) if version == 3 else (72, _BITRATES_2)
    return slots * 1000 * rates[bitrate - 1] // hertz + (head[2] >> 1 & 1), slots * 8 / hertz


def _is_mp3(pread: PRead, position: int, size: int) -> bool:
    """Whether frames follow each other from here on, three of them where the file does not end before."""
    for _ in range(3):
        length, _seconds = _mp3_frame(pread(4, position))
        if not length:
            return False
        position += length
        if position >= size:
            break
    return True


def _is_free(head: bytes) -> bool:
    """Whether it is the header of a frame of free format, which does not say its length."""
    return len(head) == 4 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2 and not head[2] >> 4


def _behind_tag(pread: PRead, head: bytes, position: int) -> int:
    """Where a tag that begins here ends; 0 for none."""
    if head[:3] == b"ID3" and len(head) == _TAG_HEAD:
        size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0)))
        return position + 10 + size + (10 if head[5] & 0x10 else 0)
    if head[:3] == b"TAG":
        return position + (227 if head[3:4] == b"+" else 128)
    if head[:8] == b"APETAGEX" and len(head) == _TAG_HEAD:
        size, _, flags = struct.unpack("<III", head[12:24])
        return position + 32 + int(size if flags & 1 << 29 else 0)  # behind the items stands the same again, or alone
    if head[:11] == b"LYRICSBEGIN":
        text = pread(_BLOCK, position)
        ends = [text.find(mark) for mark in (b"LYRICS200", b"LYRICSEND")]
        return position + max(ends) + 9 if max(ends) >= 0 else 0
    return 0


def _resumed(pread: PRead, position: int, length: int, size: int) -> int:
    """Where frames go on after a part of one, as where streams were joined; 0 where as much as a frame is lost."""
    part = pread(max(length - 2, 0), position)
    at = part.find(0xFF)
    while at >= 0:
        if _is_mp3(pread, position + at, size):
            return position + at
        at = part.find(0xFF, at + 1)
    return 0


def _is_trailer(pread: PRead, position: int, size: int) -> bool:
    """Whether the rest is little enough for a tag of some kind, or for zeros that an encoder left."""
    rest = size - position
    return rest <= _TRAILER or (rest <= _ZEROS and not any(pread(rest, position)))
