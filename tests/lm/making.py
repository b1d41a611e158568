"""What the tests of language models stand on: small corpora, small models, trainings of a few steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pipelines.lm import splitting, training
from pipelines.lm.data import Corpus, Source
from tests.lm.sources import Markov, write

SETTINGS = {
    "model": "lstm",
    "vocabulary_size": 12,
    "embedding_dim": 8,
    "hidden_size": 16,
    "num_layers": 2,
    "num_heads": 2,
    "dropout": 0.1,
    "max_length": 64,
    "batch_size": 8,
    "batch_tokens": 1024,
    "accumulate": 1,
    "learning_rate": 0.01,
    "weight_decay": 0.01,
    "warmup_steps": 5,
    "clip": 1.0,
    "num_epochs": 3,
    "early_stopping": 0,
    "schedule": "cosine",
    "precision": "fp32",
    "seed": 1,
}
"""Settings of a training that takes a second."""
FLAGS = [
    *("--embedding-dim", "8", "--hidden-size", "16", "--batch-size", "8", "--num-epochs", "3", "--warmup-steps", "5"),
    *("--num-layers", "1", "--learning-rate", "0.01"),
]
"""The same on the command line."""


def settings(**others):
    return {**SETTINGS, **others}


def sequences(count, seed=1, **source):
    """Sequences of a Markov source, and the source."""
    made = Markov(**{"size": 12, "choices": 3, "ends": 0.05, **source})
    die = np.random.default_rng(seed)
    return made, [made.draw(die) for _ in range(count)]


def corpus(folder, drawn, group="speaker", raw=False, salt=42, **how):
    """A corpus of these sequences, in a folder of its own."""
    path, units = write(folder, drawn, 12, **{"speakers": 20, **how})
    return Corpus(Source(path, units, group, salt, raw))


def trainer(of, folder, stopping=lambda: False, **others):
    """A training of this corpus, from wherever the folder stands."""
    torch.set_num_threads(1)
    Path(folder).mkdir(parents=True, exist_ok=True)
    parts = splitting.split(of, 0.9, 0)
    return training.Trainer(of, parts, settings(**others), Path(folder), torch.device("cpu"), stopping)


def weights(model):
    """All weights as one vector of bytes: equal if and only if every bit is."""
    return b"".join(weight.detach().numpy().tobytes() for weight in model.state_dict().values())
