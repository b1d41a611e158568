"""MP3 files that do not say their length: what is damaged is told, and nothing that is whole is refused."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import time

import numpy as np
import pytest
import soundfile

from pipelines.audio import lengths
from pipelines.audio.read import read
from pipelines.core.errors import ItemError

SECONDS = 10
ID3 = b"ID3\4\0\0\0\0\x0f\x20" + bytes(range(256)) * 7 + bytes(160)
"""1,952 bytes of a tag, with bytes in it that look like the begin of a frame."""
TAG = b"TAG" + b"x" * 125
LYRICS = b"LYRICSBEGIN" + b"IND0000200" + b"LYR05000" + b"la " * 1666 + b"la000013LYRICS200"
APE = (
    b"APETAGEX"
    + struct.pack("<IIIQ", 2000, 5032, 1, 0xA0000000)
    + b"y" * 5000
    + b"APETAGEX"
    + struct.pack("<IIIQ", 2000, 5032, 1, 0x80000000)
)


@pytest.fixture(scope="module")
def encode(tmp_path_factory):
    """A function of ffmpeg's options that gives an MP3 file's bytes."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg, which makes the files, is not on PATH")
    source = tmp_path_factory.mktemp("mp3") / "a.wav"
    time = np.arange(SECONDS * 44100) / 44100
    noise = np.random.default_rng(0).normal(0, 0.02, len(time))
    soundfile.write(source, 0.3 * np.sin(2 * np.pi * 300 * time) * (time % 1) + noise, 44100)

    def made(*options: str, xing: bool = False) -> bytes:
        tags = ["-write_xing", str(int(xing)), "-id3v2_version", "3" if xing else "0"]
        command = ["ffmpeg", "-v", "error", "-i", source, *tags, *options, "-f", "mp3", "-"]
        if xing:  # its place is filled in afterwards
            subprocess.run([*command[:-1], source.with_suffix(".mp3"), "-y"], check=True)
            return source.with_suffix(".mp3").read_bytes()
        return subprocess.run(command, check=True, capture_output=True).stdout

    return made


def duration(tmp_path, data: bytes, name="a.mp3") -> float:
    (tmp_path / name).write_bytes(data)
    return read(str(tmp_path / name))[1]


KINDS = {
    "constant": ("-b:a", "128k"),
    "constant, mono": ("-b:a", "64k", "-ac", "1"),
    "the highest": ("-b:a", "320k"),
    "48 kHz": ("-b:a", "64k", "-ar", "48000"),
    "32 kHz": ("-b:a", "64k", "-ar", "32000"),
    "MPEG 2": ("-b:a", "48k", "-ar", "22050"),
    "MPEG 2, 16 kHz": ("-b:a", "32k", "-ar", "16000"),
    "MPEG 2.5": ("-b:a", "16k", "-ar", "8000"),
    "MPEG 2.5, 11 kHz": ("-b:a", "24k", "-ar", "11025"),
    "MPEG 2.5, 12 kHz": ("-b:a", "24k", "-ar", "12000"),
    "variable": ("-q:a", "2"),
    "variable, MPEG 2": ("-q:a", "5", "-ar", "24000"),
    "average": ("-b:a", "96k", "-abr", "1"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a.mp3", "a.m4a"])
def test_whole(tmp_path, encode, kind, name):
    assert duration(tmp_path, encode(*KINDS[kind]), name) == pytest.approx(SECONDS, abs=0.3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("xing", [False, True])
def test_joined(tmp_path, encode, kind, xing):
    data = encode(*KINDS[kind], xing=xing)
    assert duration(tmp_path, data + TAG + ID3 + data + TAG) == pytest.approx(2 * SECONDS, abs=0.5)


BETWEEN = {
    "nothing": b"",
    "ID3v1": TAG,
    "ID3v2": ID3,
    "two tags": ID3 + ID3,
    "APE": APE,
    "lyrics": LYRICS + TAG,
    "part of a frame": b"\x55" * 300,
}


@pytest.mark.parametrize("between", BETWEEN)
def test_between_frames(tmp_path, encode, between):
    data = encode("-b:a", "128k")
    lengths.refuse_damaged_mp3(pread_of(data + BETWEEN[between] + data), 2 * len(data) + len(BETWEEN[between]))
    if between not in {"APE", "lyrics"}:  # ffmpeg stumbles over these
        assert duration(tmp_path, data + BETWEEN[between] + data) == pytest.approx(2 * SECONDS, abs=0.5)


BEHIND = {
    "zeros": bytes(417 * 6),
    "ID3v1": TAG,
    "half of it": TAG[:50],
    "APE": APE,
    "APE and ID3v1": APE + TAG,
    "lyrics": LYRICS + TAG,
    "something": b"unknown\0\1\2" * 20,
}


@pytest.mark.parametrize("behind", BEHIND)
def test_behind_the_last_frame(encode, behind):
    data = encode("-b:a", "128k") + BEHIND[behind]
    lengths.refuse_damaged_mp3(pread_of(data), len(data))


def pread_of(data: bytes):
    return lambda count, offset: data[offset : offset + count]


DAMAGE = {"zeros": bytes, "ones": lambda count: b"\xff" * count, "noise": os.urandom}


@pytest.mark.parametrize("kind", ["constant", "variable", "MPEG 2"])
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("count", [4096, 20_000])
def test_bytes_that_were_overwritten(tmp_path, encode, kind, damage, count):
    data = bytearray(encode(*KINDS[kind]))
    middle = len(data) // 2
    data[middle : middle + count] = DAMAGE[damage](count)
    with pytest.raises(ItemError, match=r"damaged: bytes that are no MP3 frames after [45]\.\d s\. To use"):
        duration(tmp_path, bytes(data))


@pytest.mark.parametrize("kind", ["constant", "variable", "MPEG 2"])
def test_cut(tmp_path, encode, kind):
    data = encode(*KINDS[kind])
    with pytest.raises(ItemError, match=r"truncated: it ends in the middle of an MP3 frame, after [45]\.\d s"):
        duration(tmp_path, data[: len(data) // 2 + 11])


def test_room_that_was_never_filled(tmp_path, encode):
    """A download that had taken its place on the disk beforehand."""
    data = encode("-b:a", "128k")
    with pytest.raises(ItemError, match="damaged"):
        duration(tmp_path, data[: len(data) // 2] + bytes(len(data) // 2))


def test_other_files_are_left_to_the_decoder(tmp_path, encode):
    for data in (b"", b"\xff", b"ID3", ID3, b"\xff\xfb", os.urandom(9000), encode("-b:a", "64k")[5:], bytes(9000)):
        lengths.refuse_damaged_mp3(pread_of(data), len(data))
    free = bytearray(encode("-b:a", "64k"))
    free[2] &= 0x0F
    lengths.refuse_damaged_mp3(pread_of(bytes(free)), len(free))


def test_a_day_takes_seconds(encode):
    data = encode("-b:a", "64k") * 8640
    assert len(data) > 600e6
    view = io.BytesIO(data)

    def pread(count: int, offset: int) -> bytes:
        view.seek(offset)
        return view.read(count)

    before = time.process_time()
    lengths.refuse_damaged_mp3(pread, len(data))
    assert time.process_time() - before < 15
