"""A home, a dataset of real speech, and the pipelines of the units as a user's command lines, all in this process."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from pathlib import Path

import numpy as np
import soundfile

from pipelines.core import cli, registry
from tests import corpus
from tests.core.world import World

RATE = 16_000


class Stage(World):
    """A World with `data/corpus`, and commands that run there."""

    def __init__(self, **variables):
        super().__init__(**variables)
        self.data = self.root / "data" / "corpus"

    def speech(self, count=8, longest=3.0):
        """Rows of real recordings, below data/corpus/s0, s1, …"""
        rows = []
        for number, path in enumerate(corpus.speech("en", count, longest=longest)):
            rows.append(self.recording(f"s{number % 3}/{number:03d}.wav", corpus.read_wave(path)))
        return rows

    def recording(self, name, samples, rate=RATE, **fields):
        """One file of int16 samples (frames,) or (frames, channels), and its row."""
        path = self.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate, "PCM_16" if path.suffix in (".wav", ".flac") else None)
        return {"audio_filepath": str(path), "duration": len(samples) / rate, **fields}

    def give(self, *arguments):
        """A command as `python -m pipelines.NAME …` has it, with no process of its own; status and words."""
        said = io.StringIO()
        root = logging.getLogger()
        before = root.handlers[:], root.level
        name, *rest = map(str, arguments)
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                try:
                    status = cli.main(registry.find(name), [*rest, "--debug"])
                except SystemExit as error:  # argparse
                    status = error.code
        finally:
            root.handlers[:], root.level = before
        return status, said.getvalue()

    def fitted(self, manifest, clusters=20):
        """The codebook of `logmel-kmeans-K` for a manifest, fitted as the launcher would."""
        from argparse import Namespace

        from pipelines.units import options

        asked = Namespace(
            source=str(manifest), units=f"logmel-kmeans-{clusters}", dense_model=None, quantizer=None, vocab_size=None
        )
        command = options.needs(asked)
        if command is not None:
            status, said = self.give(*command)
            assert status == 0, said
        return f"logmel-kmeans-{clusters}"


def rows_of(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def samples_of(path):
    samples, rate = soundfile.read(path, dtype="int16")
    assert rate == RATE
    return np.asarray(samples)
