"""Recordings for the tests: real human speech, a corpus whose truth is known, and files that are wrong in known ways.

The speech is that of Debian's packages asterisk-core-sounds-LANGUAGE-g722 (CC-BY-SA 3.0; it: CC-BY 3.0), telephone
prompts read by one voice a language, decoded once into a cache. Nothing is downloaded but by apt-get, as root.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
import tempfile
import wave
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

RATE = 16_000
SOUNDS = Path("/usr/share/asterisk/sounds")
LANGUAGES = ("en", "es", "fr", "it", "ru")
_DECODED_AT_ONCE = 40
LOUDNESS = 2500.0
"""RMS of the words in truth (full scale is 32768)."""


class Missing(Exception):
    """There is no speech on this machine, for the reason given: a reason to skip a test."""


def cache() -> Path:
    """Where decoded speech is kept between runs of the tests."""
    given = os.environ.get("VOXARRAY_TEST_CACHE")
    base = (
        Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "voxarray-tests"
    )
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError:
        base = Path(tempfile.gettempdir()) / f"voxarray-tests-{os.getuid()}"
        base.mkdir(parents=True, exist_ok=True)
    return base


# -- real speech


def prompts(language: str = "en") -> list[Path]:
    """The prompts of a language as they are installed, sorted; installs the package where that is possible."""
    found = _installed(language)
    if not found:
        _install(f"asterisk-core-sounds-{language}-g722")
        found = _installed(language)
    if not found:
        raise Missing(f"the package asterisk-core-sounds-{language}-g722 has no prompts in {SOUNDS}")
    return found


def _installed(language: str) -> list[Path]:
    folders = [path for path in sorted(SOUNDS.glob(f"{language}_*")) if path.is_dir() and not path.is_symlink()]
    return sorted(path for folder in folders for path in folder.rglob("*.g722"))


def _install(package: str) -> None:
    if os.geteuid() or not shutil.which("apt-get"):
        raise Missing(
            f"real speech is in Debian's package {package}, which only root can install: apt-get install {package}"
        )
    command = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for first in ([], ["apt-get", "update", "--quiet"]):
        if first:
            subprocess.run(first, env=environment, capture_output=True, check=False)
        done = subprocess.run([*command, package], env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
    raise Missing(f"apt-get could not install {package}: {done.stderr.strip()[-200:]}")


def speech(language: str = "en", count: Optional[int] = None, longest: float = 90.0) -> list[Path]:
    """Prompts of a language as 16 kHz WAVE files in the cache, spread evenly over the sorted names.

    `longest` leaves out prompts that last more seconds than that.
    """
    chosen = [path for path in prompts(language) if path.stat().st_size / 8000 <= longest]
    if count is not None and count < len(chosen):
        chosen = [chosen[number * len(chosen) // count] for number in range(count)]
    return decoded(chosen)


def decoded(sources: list[Path]) -> list[Path]:
    """G.722 files as WAVE files in the cache, in the same order."""
    names = {source: cache() / "speech" / source.relative_to(SOUNDS).with_suffix(".wav") for source in sources}
    with (cache() / "speech.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = [source for source, name in names.items() if not name.exists()]
        for start in range(0, len(missing), _DECODED_AT_ONCE):
            _decode({source: names[source] for source in missing[start : start + _DECODED_AT_ONCE]})
    return list(names.values())


def _decode(names: dict[Path, Path]) -> None:
    """One ffmpeg for many files: starting it costs more than decoding a prompt."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise Missing("ffmpeg, which decodes the speech, is not on PATH: apt-get install ffmpeg")
    command, private = [ffmpeg, "-nostdin", "-y", "-loglevel", "error"], {}
    for source in names:
        command += ["-f", "g722", "-i", str(source)]
    for number, name in enumerate(names.values()):
        name.parent.mkdir(parents=True, exist_ok=True)
        private[name] = name.with_suffix(f".{os.getpid()}.part")
        command += ["-map", f"{number}:a", "-bitexact", "-f", "wav", str(private[name])]
    subprocess.run(command, check=True)
    for name, part in private.items():
        part.replace(name)


# -- a corpus with known truth


class Truth(NamedTuple):
    """A recording made of spoken words: samples (int16, 16 kHz) and the true bounds of speech in seconds."""

    samples: np.ndarray
    speech: list[tuple[float, float]]


@functools.lru_cache(maxsize=4)
def words(language: str = "en") -> tuple[np.ndarray, ...]:
    """Single spoken words (digits, letters, the phonetic alphabet), each cut to where it sounds, at equal loudness."""
    single = ("digits", "letters", "phonetic")
    files = decoded([path for path in prompts(language) if path.parent.name in single])
    found = [_trimmed(read_wave(path)) for path in files]
    return tuple(word for word in found if 0.15 * RATE <= len(word) <= 1.5 * RATE)


def _trimmed(samples: np.ndarray) -> np.ndarray:
    """Without the silence around the word: from its first to its last 10 ms within 35 dB of its loudest."""
    step = RATE // 100
    frames = samples[: len(samples) // step * step].reshape(-1, step).astype(np.float64)
    level = np.sqrt((frames**2).mean(axis=1)) + 1e-9
    loud = np.flatnonzero(level > level.max() * 10 ** (-35 / 20))
    word = samples[loud[0] * step : (loud[-1] + 1) * step].astype(np.float64)
    return (word * (LOUDNESS / np.sqrt((word**2).mean()))).clip(-32768, 32767).astype(np.int16)


class Condition(NamedTuple):
    """How truth is recorded: noise (RMS relative to the speech's, in dB; pink or white), and level in dB."""

    noise: float
    pink: bool = True
    level: float = 0.0


CONDITIONS = {
    "studio": Condition(-48.0, pink=False),
    "room": Condition(-25.0),
    "street": Condition(-12.0),
    "far": Condition(-25.0, level=-30.0),
}


def truth(
    count: int, seconds: float = 15.0, seed: int = 0, language: str = "en", condition: Condition = CONDITIONS["studio"]
) -> list[Truth]:
    """`count` recordings of words with pauses of 0.3 to 2 s between."""
    random = np.random.default_rng(seed)
    spoken = words(language)
    made = []
    for _ in range(count):
        samples = _noise(random, round(seconds * RATE), condition)
        bounds, at = [], round(random.uniform(0.3, 1.0) * RATE)
        while True:
            word = spoken[random.integers(len(spoken))]
            if at + len(word) > len(samples) - RATE // 4:
                break
            samples[at : at + len(word)] += word
            bounds.append((at / RATE, (at + len(word)) / RATE))
            at += len(word) + round(random.uniform(0.3, 2.0) * RATE)
        samples *= 10 ** (condition.level / 20)
        made.append(Truth(np.rint(samples).clip(-32768, 32767).astype(np.int16), bounds))
    return made


def _noise(random: np.random.Generator, count: int, condition: Condition) -> np.ndarray:
    noise = random.normal(0, 1, count)
    if condition.pink:
        spectrum = np.fft.rfft(noise)
        spectrum /= np.sqrt(np.maximum(np.fft.rfftfreq(count, 1 / RATE), 30.0))
        noise = np.fft.irfft(spectrum, count)
    return noise * (LOUDNESS * 10 ** (condition.noise / 20) / noise.std())


class Score(NamedTuple):
    """Frames of 10 ms outside the collars: false alarms and misses in percent of all of them, accuracy, and F1."""

    false_alarm: float
    miss: float
    accuracy: float
    f1: float


def score(pairs: list[tuple[list[tuple[float, float]], list[list[float]], float]], collar: float = 0.08) -> Score:
    """Score (true bounds, found segments, duration); frames within `collar` seconds of a true bound do not count."""
    hit = alarm = miss = right = 0
    for bounds, found, duration in pairs:
        frames = round(duration * 100)
        centre = (np.arange(frames) + 0.5) / 100
        true, said = _inside(bounds, centre), _inside(found, centre)
        edges = np.array([edge for bound in bounds for edge in bound])
        counts = np.abs(centre[:, None] - edges[None, :]).min(axis=1) > collar
        true, said = true[counts], said[counts]
        hit += int((true & said).sum())
        alarm += int((~true & said).sum())
        miss += int((true & ~said).sum())
        right += int((~true & ~said).sum())
    total = hit + alarm + miss + right
    return Score(
        100 * alarm / total, 100 * miss / total, 100 * (hit + right) / total, 2 * hit / (2 * hit + alarm + miss)
    )


def _inside(bounds: list, centre: np.ndarray) -> np.ndarray:
    marks = np.zeros(len(centre), bool)
    for start, end in bounds:
        marks |= (centre >= start) & (centre < end)
    return marks


def runs_of(flags: np.ndarray, hop: int) -> list[list[float]]:
    """The runs of frames that are True, in seconds; a frame has `hop` samples."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return (edges.reshape(-1, 2) * (hop / RATE)).tolist()


# -- files


def read_wave(path: Path) -> np.ndarray:
    """The samples of a mono 16-bit WAVE file."""
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def write_wave(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    """Write int16 samples, shape (frames,) or (frames, channels), as a plain WAVE file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.ascontiguousarray(samples, "<i2").tobytes())
    return path


def convert(source: Path, target: Path, *options: str) -> Path:
    """Convert with ffmpeg: `options` stand between input and output."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise Missing("ffmpeg, which makes the test files, is not on PATH: apt-get install ffmpeg")
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [ffmpeg, "-nostdin", "-y", "-loglevel", "error", "-i", str(source), *options, str(target)], check=True
    )
    return target


def bad_files(folder: Path, good: Path) -> dict[str, Path]:
    """Files that cannot be processed, by what is wrong with them. `good` is a WAVE file to spoil copies of."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = good.read_bytes()
    flac = convert(good, folder / "whole.flac").read_bytes()
    (folder / "whole.flac").unlink()
    contents = {
        "empty.wav": b"",
        "truncated.wav": whole[: len(whole) // 2],
        "header_only.wav": whole[:44],
        "cut_in_header.wav": whole[:30],
        "not_audio.wav": b"This is a text and not a recording.\n" * 50,
        "not_audio.mp3": bytes(range(256)) * 20,
        "truncated.flac": flac[: len(flac) // 2],
        "zeros.wav": bytes(4096),
    }
    made = {}
    for name, data in contents.items():
        made[name] = folder / name
        made[name].write_bytes(data)
    made["dangling.wav"] = folder / "dangling.wav"
    if not made["dangling.wav"].is_symlink():
        made["dangling.wav"].symlink_to(folder / "nothing-here.wav")
    return made
