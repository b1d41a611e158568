"""Sources of units whose entropy is known, written as packed units with a manifest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pipelines.units.packed import PackedWriter, deduplicated


class Markov:
    """A Markov chain over `size` units (none follows itself) with a probability of ending after each unit."""

    def __init__(self, size=20, choices=4, ends=0.02, seed=0):
        die = np.random.default_rng(seed)
        self.size, self.ends = size, ends
        self.step = np.zeros((size, size))
        for unit in range(size):
            following = die.choice([other for other in range(size) if other != unit], choices, replace=False)
            self.step[unit, following] = die.dirichlet(np.full(choices, 2.0))
        self.first = np.full(size, 1 / size)

    def draw(self, die, longest=2000):
        units = [int(die.choice(self.size, p=self.first))]
        while len(units) < longest and die.random() >= self.ends:
            units.append(int(die.choice(self.size, p=self.step[units[-1]])))
        return np.array(units, np.uint16)

    def bits(self, sequence, whole=True):
        """Bits of a sequence under the source itself, its end included."""
        nats = -np.log(self.first[sequence[0]])
        for before, after in zip(sequence[:-1], sequence[1:]):
            nats -= np.log((1 - self.ends) * self.step[before, after])
        return (nats - (np.log(self.ends) if whole else 0)) / np.log(2)


def write(folder, sequences, vocabulary_size, *, speakers=4, frames=False, repeat=2):
    """Packed units (each unit lasting `repeat` frames) and their manifest; its path and the units' folder."""
    folder = Path(folder)
    units_folder = folder / "units"
    writer = PackedWriter(units_folder, not frames, {})
    rows = []
    for number, sequence in enumerate(sequences):
        raw = np.repeat(np.asarray(sequence, np.uint16), repeat)
        units, durations = deduplicated(raw) if not frames else (raw, None)
        row = {
            "audio_filepath": f"/corpus/speaker{number % speakers}/{number:05d}.wav",
            "duration": round(len(raw) / 50, 3),
            "speaker": f"speaker{number % speakers}",
            "units_filepath": str(units_folder),
            "num_units": len(units),
            "units_row": number,
        }
        text = json.dumps(row)
        rows.append(text)
        writer.add(units.tobytes(), b"" if durations is None else durations.tobytes(), len(raw), text.encode())
    described = {
        "name": "made",
        "vocabulary_size": vocabulary_size,
        "rate": 50.0,
        "run": "made-00000000",
        "codebook": "/made",
        "codebook_digest": "0" * 64,
        "parameters": {},
    }
    writer.finish(described)
    writer.publish()
    path = folder / "corpus.json"
    path.write_text("".join(f"{row}\n" for row in rows))
    return path, units_folder
