"""Where speech is in a recording: two engines that give probabilities, and rules that make segments of them.

A library, shared by the pipelines that look for speech or cut recordings at pauses. `speech.speech_segments` is the
door; the other modules are its parts. This module imports nothing heavy.
"""

from __future__ import annotations

ENGINES = ("ten", "silero")
"""Names of the engines: TEN-VAD, and Silero's network."""
