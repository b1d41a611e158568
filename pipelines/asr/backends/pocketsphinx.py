"""PocketSphinx: the recogniser that needs neither a GPU nor a download, with the model of its own package.

Its word error rate is some 34 % on read prompts: for demonstrations and tests, not for work. A decoder holds Python's
global lock while it searches, so each lives in a process of its own (`sphinx`), which ends when this one does.
"""

from __future__ import annotations

import json
import queue
import struct
import subprocess
import sys
from typing import Any, Optional, Sequence

import numpy as np

from pipelines.asr.backends.base import ONE_BY_ONE, Transcript, Word, audible, within
from pipelines.audio import RATE
from pipelines.audio.resample import Float32
from pipelines.core import paths
from pipelines.core.pipeline import Resources


class Decoder:
    """One decoding process; begun with the first piece, and again after it died."""

    def __init__(self) -> None:
        self._process: Optional[subprocess.Popen[bytes]] = None

    def recognise(self, samples: Float32) -> dict[str, Any]:
        """`text` and `words` of one piece. RuntimeError where the process dies of it."""
        if self._process is None:
            self._process = self._begin()
        pcm = np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        try:
            if self._process.stdin is None or self._process.stdout is None:
                raise RuntimeError("the decoder's pipes are closed")
            self._process.stdin.write(struct.pack("<q", len(pcm)) + pcm)
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            if not line.endswith(b"\n"):
                raise BrokenPipeError
        except BrokenPipeError:
            status = self._process.wait()
            self._process = None
            raise RuntimeError(f"PocketSphinx ended with exit status {status} on this piece.") from None
        found: dict[str, Any] = json.loads(line)
        return found

    def _begin(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pipelines.asr.backends.sphinx"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=paths.repository())

    def end(self) -> None:
        """End the process."""
        if self._process is not None:
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process.wait()
            self._process = None


class PocketSphinx:
    """As many decoders as cores."""

    longest_s = 30.0
    has_words = True
    on_gpu = False
    batch_s = 30.0
    """A batch is recognised one by one: many small ones keep all decoders busy."""
    together = ONE_BY_ONE
    overhead = 1.0
    encoder_overhead = None

    def __init__(self, decoders: int) -> None:
        self.concurrency = decoders
        self._all = [Decoder() for _ in range(decoders)]
        self._idle: queue.SimpleQueue[Decoder] = queue.SimpleQueue()
        for decoder in self._all:
            self._idle.put(decoder)

    def transcribe(self, pieces: Sequence[Float32], words: bool = False) -> list[Transcript]:
        """The transcripts of pieces (samples,) at 16 kHz ±1."""
        return audible(pieces, words, lambda some: [self._one(piece, words) for piece in some])

    def _one(self, piece: Float32, words: bool) -> Transcript:
        decoder = self._idle.get()
        try:
            found = decoder.recognise(piece)
        finally:
            self._idle.put(decoder)
        if not words:
            return Transcript(found["text"])
        return Transcript(found["text"], within([Word(*word) for word in found["words"]], len(piece) / RATE))

    def close(self) -> None:
        """End the decoding processes."""
        for decoder in self._all:
            decoder.end()


def load(resources: Resources) -> PocketSphinx:
    """The recogniser; its processes begin when they are first needed."""
    return PocketSphinx(max(1, resources.cpus))
