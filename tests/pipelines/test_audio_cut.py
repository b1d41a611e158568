"""Files of formats whose decoder reads a shorter recording than the header promises, without a word, when cut."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess

import numpy as np
import pytest
import soundfile

from pipelines.audio.read import read
from pipelines.core.errors import ItemError

FORMATS = {"aiff": "AIFF", "au": "AU", "w64": "W64", "sph": "NIST", "svx": "SVX", "caf": "CAF"}
SUBTYPES = ("PCM_16", "PCM_24", "FLOAT", "ULAW")
KINDS = [
    (suffix, subtype)
    for suffix, format_ in FORMATS.items()
    for subtype in SUBTYPES
    if soundfile.check_format(format_, subtype)
]
VALUES = np.random.default_rng(0).uniform(-0.5, 0.5, 16001)


def made(path, subtype: str):
    soundfile.write(path, VALUES, 16000, format=FORMATS[path.suffix[1:]], subtype=subtype)
    return path


@pytest.mark.parametrize(("suffix", "subtype"), KINDS)
def test_whole(tmp_path, suffix, subtype):
    assert read(str(made(tmp_path / f"a.{suffix}", subtype)))[1] == pytest.approx(1, abs=0.001)


@pytest.mark.parametrize(("suffix", "subtype"), KINDS)
@pytest.mark.parametrize("missing", [20, 5000, 12000])
def test_cut(tmp_path, suffix, subtype, missing):
    path = made(tmp_path / f"a.{suffix}", subtype)
    os.truncate(path, path.stat().st_size - missing)
    with pytest.raises(ItemError, match="truncated"):
        read(str(path))


def test_the_words(tmp_path):
    path = made(tmp_path / "a.au", "PCM_16")
    os.truncate(path, 16024)
    words = "The file is truncated: its header promises 32026 bytes, and 16024 are there."
    with pytest.raises(ItemError, match=re.escape(words)):
        read(str(path))


@pytest.mark.parametrize("kind", ["aiff", "au", "w64", "caf"])
@pytest.mark.parametrize("codec", ["pcm_s16be", "pcm_s16le", "pcm_mulaw", "pcm_s24be"])
def test_written_to_a_pipe(tmp_path, kind, codec):
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg, which makes the files, is not on PATH")
    soundfile.write(tmp_path / "a.wav", VALUES, 16000, subtype="PCM_16")
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", "-c:a", codec, "-f", kind, "-"]
    data = subprocess.run(command, capture_output=True, check=False).stdout
    if len(data) < 10_000:
        pytest.skip(f"{kind} holds no {codec}")
    (tmp_path / f"a.{kind}").write_bytes(data)
    assert read(str(tmp_path / f"a.{kind}"))[1] == pytest.approx(1, abs=0.001)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7F000000 + 46])
def test_an_aiff_whose_writer_could_not_know_its_size(tmp_path, size):
    path = made(tmp_path / "a.aiff", "PCM_16")
    data = bytearray(path.read_bytes())
    data[4:8] = struct.pack(">I", size)
    path.write_bytes(data)
    assert read(str(path))[1] == pytest.approx(1, abs=0.001)


@pytest.mark.parametrize("suffix", ["aiff", "w64"])
def test_padding_that_was_left_out(tmp_path, suffix):
    path = made(tmp_path / f"a.{suffix}", "ULAW")
    promised = struct.unpack(
        ">I" if suffix == "aiff" else "<Q", path.read_bytes()[4:8] if suffix == "aiff" else path.read_bytes()[16:24]
    )[0] + (8 if suffix == "aiff" else 0)
    os.truncate(path, min(path.stat().st_size, promised) - 1)
    assert read(str(path))[1] == pytest.approx(1, abs=0.001)


def test_a_sphere_that_does_not_say_its_samples(tmp_path):
    path = made(tmp_path / "a.sph", "PCM_16")
    path.write_bytes(path.read_bytes().replace(b"sample_count -i", b"sample_xxxxx -i"))
    try:
        assert read(str(path))[1] == pytest.approx(1, abs=0.001)
    except ItemError as error:
        assert "truncated" not in str(error)


@pytest.mark.parametrize("suffix", ["spx", "ogg", "mka"])
@pytest.mark.parametrize("codec", ["libspeex", "libvorbis", "libopus"])
def test_an_ogg_file_by_any_name(tmp_path, suffix, codec):
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg, which makes the files, is not on PATH")
    soundfile.write(tmp_path / "a.wav", np.tile(VALUES, 9), 16000, subtype="PCM_16")
    path = tmp_path / f"a.{suffix}"
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", "-c:a", codec, "-f", "ogg", path]
    if subprocess.run(command, check=False).returncode:
        pytest.skip(f"this ffmpeg has no {codec}")
    assert read(str(path))[1] == pytest.approx(9, abs=0.15)
    os.truncate(path, path.stat().st_size * 2 // 3)
    with pytest.raises(ItemError, match="truncated: it ends in the middle of an Ogg page"):
        read(str(path))
