"""Recordings as every pipeline reads them: any format, decoded to mono at 16 kHz, streamed in bounded memory.

`read.Recording` is the door; the other modules are its parts. This module and `formats` import nothing heavy.
"""

from __future__ import annotations

RATE = 16_000
"""Samples per second of everything that is read."""
