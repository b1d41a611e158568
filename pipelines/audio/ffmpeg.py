"""The ffmpeg program as a decoder, for what libsndfile does not read (m4a, wma, amr, …), streamed through a pipe."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Iterator, Optional

import numpy as np

from pipelines.audio import riff
from pipelines.audio.resample import Samples
from pipelines.core.errors import ItemError

_HEAD = 1 << 12
_DROPPED = 1 << 18


@lru_cache(maxsize=1)
def program() -> Optional[str]:
    """The ffmpeg to use: the environment's own, the one on PATH, or that of imageio-ffmpeg; None without any."""
    own = Path(sys.prefix) / "bin" / "ffmpeg"
    if own.is_file():
        return str(own)
    found = shutil.which("ffmpeg")
    if found is None:
        with suppress(ImportError, RuntimeError):
            import imageio_ffmpeg

            found = imageio_ffmpeg.get_ffmpeg_exe()
    return found


class Ffmpeg:
    """One recording's first audio stream, decoded at its own rate and channels to float32."""

    def __init__(self, path: str) -> None:
        ffmpeg = program()
        if ffmpeg is None:
            raise ItemError(
                "The format needs ffmpeg, and this node has none: not in the environment, not on PATH. Install it "
                "(`conda install -c conda-forge ffmpeg`, or `apt-get install ffmpeg`), then give the command again."
            )
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe could fill up and stop ffmpeg; closed in `close`
        with _deaf_to_warnings():
            self._process = subprocess.Popen(_command(ffmpeg, path), stdout=subprocess.PIPE, stderr=self._errors)
        try:
            self._rest = self._take(_HEAD)
            header = self._header()
        except BaseException:
            self.close()
            raise
        self.rate, self.channels = header.rate, header.channels
        self._rest = self._rest[header.offset :]

    def _take(self, count: int) -> bytes:
        if self._process.stdout is None:
            return b""
        return self._process.stdout.read(count)

    def _header(self) -> riff.WaveHeader:
        head = self._rest
        if not riff.is_wave(head):
            self._process.wait()
            raise ItemError(f"The file is not audio that libsndfile or ffmpeg can read: {self._complaint()}.")
        return riff.parse(lambda count, offset: head[offset : offset + count], None)

    def read(self, frames: int) -> Samples:
        """The next frames. At the end, raises ItemError if ffmpeg met damage anywhere."""
        wanted = frames * self.channels * 4
        data = self._rest[:wanted]
        self._rest = self._rest[wanted:]
        if len(data) < wanted:
            data += self._take(wanted - len(data))
        if len(data) < wanted:
            self._check_end()
        whole = len(data) // (4 * self.channels)
        samples = np.frombuffer(data, "<f4", whole * self.channels)
        return samples if self.channels == 1 else samples.reshape(whole, self.channels)

    def skip(self, frames: int) -> None:
        """Pass over the next frames: decoded and dropped, which is exact in every format."""
        while frames > 0:
            count = len(self.read(min(frames, _DROPPED)))
            if not count:
                return
            frames -= count

    def _check_end(self) -> None:
        status = self._process.wait()
        complaint = self._complaint()
        if status or complaint != _SILENT:
            raise ItemError(
                f"The file is damaged or truncated: {complaint}. To use what can be decoded of it, convert it first: "
                "`ffmpeg -i IN OUT.wav`."
            )

    def _complaint(self) -> str:
        """What it said first, without addresses and the file's path, so that causes group."""
        self._errors.seek(0)
        lines = _serious(self._errors.read(1 << 16).decode("utf-8", "replace").strip().splitlines())
        if not lines:
            return _SILENT
        return lines[0].rpartition("] ")[2].rpartition(": ")[2].strip().rstrip(".") or _SILENT

    def close(self) -> None:
        """End ffmpeg."""
        if self._process.poll() is None:
            self._process.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait()
        self._errors.close()


_SILENT = "ffmpeg gave no reason"


@contextmanager
def _deaf_to_warnings() -> Iterator[None]:
    """Processes started inside are not ended by the signals that warn a task: its scheduler sends them to all alike.

    Without this, a warning would make the recording that is being read look damaged.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serious(lines: list[str]) -> list[str]:
    """Without what ffmpeg says of tags between the frames of MP3 files that were joined: it skips them rightly."""
    kept: list[str] = []
    for before, line in zip(["", *lines], lines):
        harmless = "Header missing" in line or ("Header missing" in before and line.startswith("Error "))
        if not harmless:
            kept.append(line)
    return kept


def _command(ffmpeg: str, path: str) -> list[str]:
    options = "-nostdin -hide_banner -loglevel error -threads 1 -protocol_whitelist file,pipe -i"
    output = "-map 0:a:0 -vn -sn -dn -c:a pcm_f32le -bitexact -flags bitexact -rf64 never -f wav pipe:1"
    # `file:` keeps a name such as `concat:…` from being taken for a protocol.
    return [ffmpeg, *options.split(), f"file:{path}", *output.split()]
