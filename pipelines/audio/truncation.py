"""Signs that a compressed file was cut short, where its decoder would take what is there for the whole.

Sources: RFC 3533 (Ogg pages), the ID3v2.4 structure, and the Xing header as LAME writes it.
"""

from __future__ import annotations

from pipelines.audio.riff import PRead

_LARGEST_PAGE = 27 + 255 + 255 * 255


def mp3_tells_length(pread: PRead) -> bool:
    """Whether an MP3 file says how long it is (a Xing or Info header); else decoders only estimate it."""
    start = 0
    head = pread(10, 0)
    if head[:3] == b"ID3" and len(head) == 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0)))
    frame = pread(4096, start)
    return b"Xing" in frame or b"Info" in frame


def ogg_is_cut(pread: PRead, size: int) -> bool:
    """Whether an Ogg file (Vorbis, Opus, FLAC, Speex) ends in the middle of a page."""
    start = max(0, size - _LARGEST_PAGE)
    tail = pread(size - start, start)
    page = tail.rfind(b"OggS")
    if page < 0:
        return True
    head = tail[page : page + 27]
    if len(head) < 27:
        return True
    lacing = tail[page + 27 : page + 27 + head[26]]
    return len(lacing) < head[26] or page + 27 + head[26] + sum(lacing) > len(tail)
