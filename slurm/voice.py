"""A small corpus that sounds like speech, made on the spot: for the demo, where nothing may be downloaded.

With espeak-ng on PATH, it reads sentences. Without, a source-filter voice (Fant, 1960) babbles: pulses at a gliding
pitch, noise for consonants, formants of vowels after Peterson and Barney (1952). No words, but a voice activity
detector hears a voice. Runs in the environment of `vad` (numpy, soundfile): `python slurm/voice.py FOLDER`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 16000
_VOWELS = {
    "i": (270, 2290, 3010),
    "e": (530, 1840, 2480),
    "a": (730, 1090, 2440),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}
"""First three formants in Hz, of men; women's and children's are scaled up."""
_BANDWIDTHS = (60.0, 90.0, 150.0)
_SPEAKERS = (("anna", 205.0, 1.15), ("ben", 115.0, 1.0), ("kim", 270.0, 1.25))
"""Name, pitch in Hz, scale of the formants."""
_FORMATS = (("wav", RATE, 1), ("flac", 44100, 2), ("ogg", 22050, 1), ("wav", 8000, 1))
_TEXTS = (
    ("en", "The north wind and the sun were disputing which was the stronger."),
    ("fr", "La bise et le soleil se disputaient, chacun assurant qu'il était le plus fort."),
    ("es", "El viento norte y el sol discutían sobre cuál de ellos era el más fuerte."),
    ("de", "Einst stritten sich Nordwind und Sonne, wer von ihnen beiden wohl der Stärkere wäre."),
)

Samples = Any
"""Samples of one channel in [-1, 1], float64, at `RATE` where nothing else is said."""


def _resonances(size: int, formants: tuple[float, ...]) -> Samples:
    """Gain of a cascade of resonances over the frequencies of a spectrum of `size` samples."""
    frequencies = np.fft.rfftfreq(size, 1 / RATE)
    gain = np.ones_like(frequencies)
    for centre, width in zip(formants, _BANDWIDTHS):
        gain *= centre**2 / np.sqrt((centre**2 - frequencies**2) ** 2 + (width * frequencies) ** 2)
    return gain


def _syllable(random: Any, pitch: float, scale: float) -> Samples:
    """A consonant's noise and a vowel, 0.12 to 0.3 s."""
    size = int(RATE * random.uniform(0.12, 0.3))
    glide = np.linspace(random.uniform(0.95, 1.1), random.uniform(0.85, 1.0), size)
    phase = np.cumsum(pitch * glide * (1 + 0.01 * random.standard_normal(size)) / RATE)
    pulses = np.diff(np.floor(phase), prepend=0.0)
    source = np.fft.rfft(pulses + 0.003 * random.standard_normal(size))
    frequencies = np.fft.rfftfreq(size, 1 / RATE)
    source /= 1 + (frequencies / 500.0)  # the glottis: 6 dB an octave with the lips
    first, second = (_VOWELS[random.choice(list(_VOWELS))] for _ in range(2))
    voices = [
        np.fft.irfft(source * _resonances(size, tuple(scale * hertz for hertz in vowel)), size)
        for vowel in (first, second)
    ]
    blend = np.linspace(0, 1, size)
    vowel = voices[0] * (1 - blend) + voices[1] * blend
    vowel *= np.sin(np.pi * np.linspace(0.05, 1, size)) ** 0.5 / (np.abs(vowel).max() + 1e-9)
    noise = np.diff(random.standard_normal(int(RATE * random.uniform(0.03, 0.09)) + 1)) * 0.08
    return np.concatenate([noise * np.hanning(noise.size), vowel])


def babble(random: Any, pitch: float, scale: float, seconds: float) -> Samples:
    """Phrases of syllables with pauses between, and a little room noise under everything."""
    pieces, length = [np.zeros(int(RATE * random.uniform(0.3, 0.9)))], 0
    while length < seconds * RATE:
        pieces += [_syllable(random, pitch, scale) for _ in range(random.integers(4, 12))]
        pieces.append(np.zeros(int(RATE * random.uniform(0.4, 1.5))))
        length = sum(piece.size for piece in pieces)
    samples = np.concatenate(pieces)
    return 0.4 * samples / np.abs(samples).max() + 0.001 * random.standard_normal(samples.size)


def spoken(program: str, language: str, text: str, pitch: float) -> Samples:
    """A sentence from espeak-ng, twice, with a pause between."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "voice.wav"
        subprocess.run(
            [program, "-v", language, "-p", str(int(pitch / 4)), "-w", str(path), text],
            check=True,
            capture_output=True,
        )
        samples, rate = soundfile.read(path)
    pause = np.zeros(int(0.8 * RATE))
    once = _resampled(samples, rate, RATE)
    return 0.7 * np.concatenate([pause, once, pause, once, pause])


def _resampled(samples: Samples, rate: int, wanted: int) -> Samples:
    """At another sampling rate, by cutting or padding the spectrum."""
    size = round(samples.size * wanted / rate)
    return np.fft.irfft(np.fft.rfft(samples), size) * size / samples.size if rate != wanted else samples


def make(folder: Path) -> str:
    """Write a dozen recordings of three speakers in several formats; returns what voice they have."""
    program = shutil.which("espeak-ng")
    random = np.random.default_rng(7)
    for name, pitch, scale in _SPEAKERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, (suffix, rate, channels) in enumerate(_FORMATS):
            if program is not None:
                samples = spoken(program, *_TEXTS[number], pitch)
            else:
                samples = babble(random, pitch, scale, 4.0 + 3.0 * number)
            samples = _resampled(samples, RATE, rate)
            wide = np.repeat(samples[:, None], channels, axis=1)
            soundfile.write(folder / name / f"{name}_{number}.{suffix}", wide.astype(np.float32), rate)
    return "espeak-ng" if program is not None else "babble"


if __name__ == "__main__":
    print(make(Path(sys.argv[1])))
