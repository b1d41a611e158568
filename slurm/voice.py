"""A small corpus of synthetic speech whose words are known, made on the spot: the demo downloads no audio.

espeak-ng (from the package espeakng-loader) reads a fable in three voices, in several formats, rates and channels,
with pauses. Runs in the environment `demo`: `python slurm/voice.py FOLDER`. Writes FOLDER/transcripts.json, too: a
JSON object a recording with `audio_filepath`, `duration` and `text`.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 16000
VOICES = {"anna": (b"en-us+f3", 60), "ben": (b"en-us", 45), "kim": (b"en-us+f5", 75)}
"""espeak-ng's voice and its pitch (0 to 99) by speaker."""
FORMATS = (("wav", RATE, 1), ("flac", 44100, 2), ("ogg", 22050, 1), ("wav", 8000, 1))
TEXTS = (
    (
        "The north wind and the sun were disputing which was the stronger,",
        "when a traveler came along wrapped in a warm cloak.",
    ),
    (
        "They agreed that the one who first succeeded in making the traveler take his cloak off",
        "should be considered stronger than the other.",
    ),
    (
        "Then the north wind blew as hard as he could,",
        "but the more he blew, the more closely did the traveler fold his cloak around him.",
    ),
    (
        "And at last the north wind gave up the attempt.",
        "Then the sun shone out warmly, and immediately the traveler took off his cloak.",
    ),
)
"""Aesop's fable, as the International Phonetic Association has it read."""
_SYNCHRONOUS, _UTF8, _BY_CHARACTER, _SPEED, _PITCH = 2, 1, 1, 1, 3

Samples = Any
"""Samples of one channel in [-1, 1], float64."""


class Espeak:
    """espeak-ng through its C interface (speak_lib.h)."""

    def __init__(self) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._said: list[Samples] = []
        self.rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback = kind(self._take)  # kept: the library calls it later
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples: Any, count: int, _: Any) -> int:
        if samples and count > 0:
            self._said.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, text: str, voice: bytes, pitch: int) -> Samples:
        """A sentence at RATE."""
        self._said = []
        self._library.espeak_SetVoiceByName(voice)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        self._library.espeak_SetParameter(_SPEED, 140, 0)
        data = text.encode() + b"\0"
        self._library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, _BY_CHARACTER, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        return resampled(np.concatenate(self._said) / 32768, self.rate, RATE)


def resampled(samples: Samples, rate: int, wanted: int) -> Samples:
    """At another sampling rate, by cutting or padding the spectrum."""
    size = round(samples.size * wanted / rate)
    return np.fft.irfft(np.fft.rfft(samples), size) * size / samples.size if rate != wanted else samples


def make(folder: Path) -> None:
    """Write a dozen recordings of three speakers, and what is said in them."""
    espeak, random = Espeak(), np.random.default_rng(7)
    rows = []
    for name, (voice, pitch) in VOICES.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, (suffix, rate, channels) in enumerate(FORMATS):
            pieces = [np.zeros(int(0.6 * RATE))]
            for text in TEXTS[number]:
                pieces += [espeak.say(text, voice, pitch), np.zeros(int(random.uniform(0.5, 1.2) * RATE))]
            samples = resampled(0.8 * np.concatenate(pieces), RATE, rate)
            wide = np.repeat(samples[:, None], channels, axis=1)
            wide = wide + 0.0005 * random.standard_normal(wide.shape)  # a room is never quite silent
            path = folder / name / f"{name}_{number}.{suffix}"
            soundfile.write(path, wide.astype(np.float32), rate)
            seconds = round(len(wide) / rate, 6)
            said = " ".join(TEXTS[number])
            rows.append({"audio_filepath": f"{name}/{path.name}", "duration": seconds, "text": said})
    (folder / "transcripts.json").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
