"""How well a model predicts the sequences of a part of the corpus: the figures of training, leaderboard and test.

A sequence counts as `score` counts it: whole, with its end, an LSTM's state carried through it. So the figures do not
depend on `max_length`, batches or the number of processes, and those of different models can be compared.
"""

from __future__ import annotations

import math
from typing import Callable, NamedTuple

import torch

from pipelines.core.errors import Unfinished
from pipelines.language.models import UnitModel
from pipelines.language.scoring import log_probabilities
from pipelines.lm import parallel
from pipelines.lm.data import Corpus, Ints

_BLOCK = 2048
"""Sequences that are scored at once."""


class Score(NamedTuple):
    """Sums over sequences: negative log-probability in nats, tokens (a unit or an end each), seconds of speech."""

    nats: float
    tokens: int
    seconds: float

    def figures(self) -> dict[str, float]:
        """Bits a token, perplexity, and (where durations are known) bits per second of speech."""
        bits = self.nats / math.log(2)
        mean = self.nats / max(1, self.tokens)
        figures = {"bits_per_unit": bits / max(1, self.tokens), "perplexity": math.exp(min(700.0, mean))}
        return {**figures, "bits_per_second": bits / self.seconds} if self.seconds else figures


def evaluate(model: UnitModel, corpus: Corpus, items: Ints, stopping: Callable[[], bool] = lambda: False) -> Score:
    """The score of these items. Raises Unfinished where it is told to stop."""
    model.eval()
    nats = 0.0
    for start in range(0, len(items), _BLOCK):
        if start and parallel.size() == 1 and stopping():  # several processes could not agree on when
            raise Unfinished("stopped while it was being evaluated; goes on with the evaluation")
        mine = parallel.share(items[start : start + _BLOCK])
        nats -= float(log_probabilities(model, [corpus.sequence(item) for item in mine.tolist()]).sum())
    device = next(model.parameters()).device
    total = parallel.added(nats, torch.device(device))
    return Score(total, int(corpus.lengths[items].sum()) + len(items), float(corpus.seconds[items].sum()))
