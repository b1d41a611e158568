"""WAVE headers as they are met: extensible, with chunks of any kind, open ended, beyond 4 GiB, cut short."""

from __future__ import annotations

import functools
import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.audio import riff
from pipelines.audio.read import Recording, read
from pipelines.core.errors import ItemError

SAMPLES = np.arange(-500, 500, dtype=np.int16)
DATA = SAMPLES.tobytes()
PLAIN = struct.pack("<HHIIHH", 1, 1, 16000, 32000, 2, 16)
_GUID = bytes.fromhex("000000001000800000aa00389b71")
EXTENSIBLE = struct.pack("<HHIIHHHHIH", 0xFFFE, 1, 16000, 32000, 2, 16, 22, 16, 4, 1) + _GUID


def chunk(name: bytes, data: bytes, size=None) -> bytes:
    return name + struct.pack("<I", len(data) if size is None else size) + data + b"\0" * (len(data) % 2)


def wave(*chunks: bytes, magic=b"RIFF", size=None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return magic + struct.pack("<I", len(body) if size is None else size) + body


def samples_of(tmp_path, data: bytes) -> np.ndarray:
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    samples, duration = read(str(path))
    assert duration == round(len(samples) / 16000, 6)
    return samples


GOOD = {
    "plain": wave(chunk(b"fmt ", PLAIN), chunk(b"data", DATA)),
    "extensible": wave(chunk(b"fmt ", EXTENSIBLE), chunk(b"data", DATA)),
    "chunks around": wave(
        chunk(b"JUNK", bytes(31)),
        chunk(b"bext", bytes(9001)),
        chunk(b"fmt ", PLAIN + b"\0\0"),
        chunk(b"LIST", b"INFOISFT" + b"\5\0\0\0Lavf\0\0"),
        chunk(b"data", DATA),
        chunk(b"LIST", b"INFO"),
        chunk(b"id3 ", bytes(77)),
    ),
    "an odd chunk without its pad": wave(b"note\x03\0\0\0abc", chunk(b"fmt ", PLAIN), chunk(b"data", DATA)),
    "sizes of 0 (a writer that was killed)": wave(chunk(b"fmt ", PLAIN), chunk(b"data", DATA, size=0), size=0),
    "data size 0, form size of an empty file": wave(chunk(b"fmt ", PLAIN), chunk(b"data", DATA, size=0), size=36),
    "sizes unknown (ffmpeg to a pipe)": wave(
        chunk(b"fmt ", PLAIN), chunk(b"data", DATA, size=0xFFFFFFFF), size=0xFFFFFFFF
    ),
    "sizes unknown (SoX to a pipe)": wave(
        chunk(b"fmt ", PLAIN), chunk(b"data", DATA, size=0x7FFFF000), size=0x7FFFF024
    ),
    "half a sample at the end": wave(chunk(b"fmt ", PLAIN), chunk(b"data", DATA + b"\1", size=0), size=0)[:-1],
    "RF64": wave(
        chunk(b"ds64", struct.pack("<QQQI", 2100, len(DATA), len(SAMPLES), 0)),
        chunk(b"fmt ", PLAIN),
        chunk(b"data", DATA, size=0xFFFFFFFF),
        magic=b"RF64",
        size=0xFFFFFFFF,
    ),
    "BW64 with more behind": wave(
        chunk(b"ds64", struct.pack("<QQQI", 2100, len(DATA), len(SAMPLES), 0)),
        chunk(b"fmt ", EXTENSIBLE),
        chunk(b"data", DATA, size=0xFFFFFFFF),
        chunk(b"axml", b"<a/>"),
        magic=b"BW64",
        size=0xFFFFFFFF,
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_good(tmp_path, name):
    assert np.array_equal(samples_of(tmp_path, GOOD[name]), SAMPLES)


BAD = {
    "cut in the data": (GOOD["plain"][:-300], "truncated: its header promises 0.06[23] s of audio"),
    "cut in the header": (GOOD["plain"][:30], "truncated"),
    "cut after the header": (GOOD["plain"][:36], "truncated: it ends before its samples begin"),
    "no samples": (wave(chunk(b"fmt ", PLAIN), chunk(b"data", b"")), "no audio"),
    "no samples but words": (wave(chunk(b"fmt ", PLAIN), chunk(b"data", b""), chunk(b"LIST", b"INFO")), "no audio"),
    "no format": (wave(chunk(b"data", DATA)), "does not say what its samples are"),
    "no channels": (wave(chunk(b"fmt ", bytes(16)), chunk(b"data", DATA)), "0 channels"),
    "short format": (wave(chunk(b"fmt ", b"\1\0\1\0"), chunk(b"data", DATA)), "too short"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad(tmp_path, name):
    data, words = BAD[name]
    with pytest.raises(ItemError, match=words):
        samples_of(tmp_path, data)


@given(st.binary(max_size=300), st.sampled_from([b"RIFF\0\0\0\0WAVE", b"RF64\xff\xff\xff\xffWAVEds64"]))
def test_any_bytes_are_parsed_or_refused(rest, start):
    data = start + rest
    try:
        header = riff.parse(lambda count, offset: data[offset : offset + count], len(data))
    except ItemError:
        return
    assert header.frames * header.channels * max(1, header.bits // 8) <= len(data)


def test_beyond_four_gibibytes(tmp_path):
    """A file of 40 hours, sparse on the disk: its last samples are found, whether RF64 or with wrapped sizes."""
    total = 40 * 3600 * 16000
    tail = SAMPLES
    wide = chunk(b"ds64", struct.pack("<QQQI", 2 * total, 2 * total, total, 0))
    for head in (
        wave(wide, chunk(b"fmt ", PLAIN), b"data\xff\xff\xff\xff", magic=b"RF64", size=0xFFFFFFFF),
        wave(
            chunk(b"fmt ", PLAIN), b"data" + struct.pack("<I", (2 * total) % (1 << 32)), size=(2 * total) % (1 << 32)
        ),
    ):
        path = tmp_path / "long.wav"
        with path.open("wb") as file:
            file.write(head)
            file.seek(len(head) + 2 * (total - len(tail)))
            file.write(tail.tobytes())
        with path.open("rb") as file:
            header = riff.parse(functools.partial(os.pread, file.fileno()), path.stat().st_size)
            assert header.frames == total
            assert os.pread(file.fileno(), 2000, header.offset + 2 * (total - len(tail))) == tail.tobytes()


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(GOOD["plain"])
    with Recording(str(path)) as recording:
        os.truncate(path, 500)
        with pytest.raises(ItemError, match="shorter"):
            list(recording.blocks(256))
