"""The process of one PocketSphinx decoder: pieces come on standard input, a JSON line for each goes to its output.

A piece is its length in bytes (int64, little-endian) and its samples (int16, 16 kHz). The end of the input, which is
also the death of whoever wrote to it, ends the process.
"""

from __future__ import annotations

import json
import re
import signal
import struct
import sys
from typing import Any, BinaryIO, Optional

_FRAMES_PER_S = 100
_VARIANT = re.compile(r"\(\d+\)$")
"""Of a word with several pronunciations, which: `the(2)`."""


def recognise(decoder: Any, pcm: bytes) -> dict[str, Any]:
    """The text of one piece, and its words with their seconds."""
    # Without this, the noise and loudness of the pieces before would change what is heard in this one.
    decoder.reinit_feat()
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    best = decoder.hyp()
    words = []
    for segment in (decoder.seg() or []) if best is not None else []:
        if segment.word[0] not in "<[+":  # silence and noises
            bounds = segment.start_frame / _FRAMES_PER_S, (segment.end_frame + 1) / _FRAMES_PER_S
            words.append([*bounds, _VARIANT.sub("", segment.word)])
    return {"text": best.hypstr.strip() if best is not None else "", "words": words}


def serve(source: BinaryIO, target: BinaryIO) -> None:
    """Answer pieces until the input ends."""
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=16000, cmn="batch", loglevel="FATAL")
    while True:
        pcm = _read(source)
        if pcm is None:
            return
        target.write(json.dumps(recognise(decoder, pcm)).encode() + b"\n")
        target.flush()


def _read(source: BinaryIO) -> Optional[bytes]:
    head = source.read(8)
    if len(head) < 8:
        return None
    (count,) = struct.unpack("<q", head)
    pcm = source.read(count)
    return pcm if len(pcm) == count else None


if __name__ == "__main__":
    # The engine's signals are for the process above, which closes the pipe when it is done.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    serve(sys.stdin.buffer, sys.stdout.buffer)
