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

_TRAILER = 4096
"""Bytes (ID3v1, a small APE tag) that may follow the last frame of an MP3 file; more may be another recording."""
_UNKNOWN = 0xFFFFFFFF
_STREAMED_AIFF = 0x7EFF0000
"""Sizes from here on, in a small range, are those of SoX where it writes AIFF to a pipe: it could not know them."""


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
