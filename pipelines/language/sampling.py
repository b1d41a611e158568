"""Sequences drawn from a model: temperature, top-k, top-p; each item's random numbers are its own.

The arithmetic is in double precision: the last bits of a sum depend on which sequences share a batch, and in single
precision that flips about one draw in a million. An item's draws are then the same in any batch, on any array.
"""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence

import numpy as np
import torch
from torch import Tensor

from pipelines.language.models import State, UnitModel, kept
from pipelines.language.scoring import Units


class How(NamedTuple):
    """How to draw. `temperature` 0: always the likeliest; `top_k` 0, `top_p` 1: from all; `least`, `most`: units."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    least: int = 1
    most: int = 500
    seed: int = 0


class Sample(NamedTuple):
    """What was drawn: units (without the prompt), whether the model ended it, and its log-probability (nats).

    The log-probability is the model's own, at temperature 1 and of all units, the end included if it was drawn.
    """

    units: Units
    ended: bool
    log_probability: float


@torch.inference_mode()
def generate(model: UnitModel, prompts: Sequence[Units], numbers: Sequence[int], how: How) -> list[Sample]:
    """One sequence an item. `prompts`: of one length, not counted in `how.most`; `numbers`: the items' own.

    The model must be in `eval`, and in double precision for draws that do not depend on the batch.
    """
    die = np.stack([_die(how.seed, number).random(how.most) for number in numbers])
    device = next(model.parameters()).device
    first = np.full((len(prompts), len(prompts[0]) + 1), model.boundary, np.int64)
    for row, prompt in enumerate(prompts):
        first[row, 1:] = prompt
    reader = _Reader(model, torch.from_numpy(first).to(device))
    alive = np.arange(len(prompts))
    drawn: list[list[int]] = [[] for _ in prompts]
    nats = np.zeros(len(prompts))
    ended = np.zeros(len(prompts), bool)
    for turn in range(how.most):
        chosen, worth = _draw(reader.logits(), torch.from_numpy(die[alive, turn]).to(device), how, turn)
        ends = (chosen == model.boundary).cpu().numpy()
        nats[alive] += worth.cpu().numpy()
        ended[alive[ends]] = True
        goes_on = np.flatnonzero(~ends)
        for row, unit in zip(alive[goes_on].tolist(), chosen.cpu().numpy()[goes_on].tolist()):
            drawn[row].append(unit)
        if not len(goes_on):
            break
        alive = alive[goes_on]
        rows = torch.from_numpy(goes_on).to(device)
        reader.read(chosen.index_select(0, rows), None if len(goes_on) == len(ends) else rows)
    return [
        Sample(np.array(units, np.uint16), bool(end), float(value)) for units, end, value in zip(drawn, ended, nats)
    ]


def _die(seed: int, number: int) -> np.random.Generator:
    """An item's random numbers: a stream of a counter-based generator (Salmon et al. 2011) under its own key."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, number], np.uint64)))


class _Reader:
    """A batch of prefixes of one length, and the model's state after them.

    Where a model's context is full, it reads the latest half of it anew, in the windows in which sequences are scored.
    """

    def __init__(self, model: UnitModel, tokens: Tensor) -> None:
        self._model, self._tokens, self._start = model, tokens, 0
        self._hidden: Tensor
        self._state: Optional[State] = None
        self._advance(tokens.shape[1])

    def _advance(self, new: int) -> None:
        """Take in the last `new` tokens."""
        context, length = self._model.context, self._tokens.shape[1]
        if context is not None and length > self._start + context:
            stride = max(1, context // 2)
            self._start += -(-(length - self._start - context) // stride) * stride
            self._state, new = None, length - self._start
        hidden, self._state = self._model.step(self._tokens[:, length - new :], self._state)
        self._hidden = hidden[:, -1]

    def logits(self) -> Tensor:
        """Logits of what comes next. Shape (sequences, V + 1)."""
        return self._model.logits(self._hidden)

    def read(self, chosen: Tensor, rows: Optional[Tensor]) -> None:
        """Append one token to each sequence, of which only `rows` are kept (None: all)."""
        if rows is not None:
            self._tokens = self._tokens.index_select(0, rows)
            self._state = kept(self._state, rows) if self._state is not None else None
        self._tokens = torch.cat([self._tokens, chosen[:, None]], dim=1)
        self._advance(1)


def _draw(logits: Tensor, die: Tensor, how: How, turn: int) -> tuple[Tensor, Tensor]:
    """One token for each row, by one random number in [0, 1) each, and its log-probability. Shapes (sequences,)."""
    logs = torch.log_softmax(logits, -1)
    allowed = logs.clone()
    if turn < how.least:
        allowed[:, -1] = -torch.inf
    if how.temperature == 0:
        chosen = allowed.argmax(-1)
    else:
        weights = torch.softmax(_narrowed(allowed / how.temperature, how), -1).cumsum(-1)
        # The product may round up to the whole sum; the last token with any weight is then meant.
        at = torch.searchsorted(weights, (die[:, None] * weights[:, -1:]), right=True).squeeze(-1)
        last = torch.searchsorted(weights, weights[:, -1:].contiguous()).squeeze(-1)
        chosen = torch.minimum(at, last)
    return chosen, logs.gather(1, chosen[:, None]).squeeze(1)


def _narrowed(logits: Tensor, how: How) -> Tensor:
    """The logits with those outside of the likeliest `top_k`, and of the likeliest with `top_p` together, at -inf."""
    if how.top_k and how.top_k < logits.shape[-1]:
        least = logits.topk(how.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if how.top_p < 1:
        ordered, places = logits.sort(dim=-1, descending=True, stable=True)
        weights = ordered.softmax(-1)
        beyond = weights.cumsum(-1) - weights >= how.top_p
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(1, places, beyond), -torch.inf)
    return logits
