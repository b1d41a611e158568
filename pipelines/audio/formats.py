"""Which files are taken for recordings, by their suffix. What a file really is, its content decides."""

from __future__ import annotations

# fmt: off
LIBSNDFILE = frozenset((
    "wav", "wave", "bwf", "rf64", "w64", "flac", "mp3", "mp2", "ogg", "oga", "opus", "aif", "aiff", "aifc", "au",
    "snd", "caf", "sph", "nist", "voc", "paf", "svx", "avr", "htk", "sds",
))
"""Suffixes of formats that libsndfile reads (most of them ffmpeg reads too)."""

FFMPEG = frozenset((
    "m4a", "m4b", "aac", "adts", "wma", "amr", "3gp", "3ga", "webm", "weba", "mka", "spx", "ape", "tta", "wv", "ac3",
    "eac3", "dts", "g722", "gsm", "mpc", "ra",
))
"""Suffixes of formats that need ffmpeg."""
# fmt: on

SUFFIXES = LIBSNDFILE | FFMPEG
"""Every suffix of a recording, lower case, without its dot. Video containers are not among them."""


def suffix(name: str) -> str:
    """The suffix of a file name, lower case, without its dot; empty for none, and for hidden names such as `.wav`."""
    stem, dot, end = name.rpartition(".")
    return end.lower() if dot and stem else ""


def is_recording(name: str) -> bool:
    """Whether a file of that name is taken for a recording."""
    return suffix(name) in SUFFIXES
