"""What sequences of units are worth to a model: the log-probability of each, its end included.

An LSTM carries its state through a sequence of any length. A transformer sees at most the stretch it was trained on:
sequences that are longer go through it in windows of that length which overlap by half, and every unit is judged where
most precedes it. So its first `context` predictions rest on all before them, later ones on `context / 2` to `context`
tokens. No result depends on the sequences that share its batch, but for the last bits of a sum.
"""

from __future__ import annotations

from typing import Iterator, NamedTuple, Optional, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipelines.language.models import State, UnitModel, kept, nats_of

Floats = npt.NDArray[np.float64]
Units = npt.NDArray[np.uint16]

BATCH_TOKENS, FEW_TOKENS = 16_384, 1_024
"""Tokens that go through a model at once, on a GPU and on a CPU, which larger batches make slower (measured)."""
_STRETCH = 1_024
"""Tokens of a sequence that an LSTM takes at once."""


@torch.inference_mode()
def log_probabilities(model: UnitModel, sequences: Sequence[Units], batch_tokens: Optional[int] = None) -> Floats:
    """Log-probability (nats) of each sequence, its end included. Shape (sequences,). The model must be in `eval`."""
    device = next(model.parameters()).device
    if batch_tokens is None:
        batch_tokens = FEW_TOKENS if device.type == "cpu" else BATCH_TOKENS
    total = torch.zeros(len(sequences), dtype=torch.float64, device=device)
    windows = _carried if model.context is None else _windowed
    order = sorted(range(len(sequences)), key=lambda number: -len(sequences[number]))
    for owners, found in windows(model, sequences, order, batch_tokens):
        total.index_add_(0, owners, found.double())
    result: Floats = total.cpu().numpy()
    return result


def _with_ends(sequence: Units, boundary: int) -> npt.NDArray[np.int64]:
    """The sequence between boundaries: inputs are all but the last, targets all but the first."""
    whole = np.full(len(sequence) + 2, boundary, np.int64)
    whole[1:-1] = sequence
    return whole


def _carried(
    model: UnitModel, sequences: Sequence[Units], order: Sequence[int], batch_tokens: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """(sequence, log-probability) of every token; stretch by stretch, sequences that have ended drop out."""
    start = 0
    while start < len(order):
        width = min(_STRETCH, len(sequences[order[start]]) + 1)
        chosen = order[start : start + max(1, batch_tokens // width)]
        start += len(chosen)
        wholes = [_with_ends(sequences[number], model.boundary) for number in chosen]
        state: Optional[State] = None
        for first in range(0, len(wholes[0]) - 1, _STRETCH):
            alive = [number for number, whole in enumerate(wholes) if len(whole) - 1 > first]
            pieces = [_Window(chosen[number], wholes[number][first : first + _STRETCH + 1], 0) for number in alive]
            if state is not None:
                device = state[0][0].device
                state = kept(state, torch.arange(len(alive), device=device))  # the longest come first
            owners, found, state = _judged(model, pieces, state)
            yield owners, found


class _Window(NamedTuple):
    """A stretch of a sequence: its tokens, one more than are predicted; what is judged begins at `start`."""

    owner: int
    tokens: npt.NDArray[np.int64]
    start: int


def _windowed(
    model: UnitModel, sequences: Sequence[Units], order: Sequence[int], batch_tokens: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """(sequence, log-probability) of every token, window by window."""
    held: list[_Window] = []
    for number in order:
        for window in _windows(number, _with_ends(sequences[number], model.boundary), model.context or 1):
            longest = max(len(each.tokens) for each in (*held, window))
            if held and longest * (len(held) + 1) > batch_tokens:
                yield _judged(model, held, None)[:2]
                held = []
            held.append(window)
    if held:
        yield _judged(model, held, None)[:2]


def _windows(owner: int, whole: npt.NDArray[np.int64], context: int) -> Iterator[_Window]:
    stride, judged = max(1, context // 2), 0
    for first in range(0, len(whole) - 1, stride):
        yield _Window(owner, whole[first : first + context + 1], judged - first)
        judged = min(first + context, len(whole) - 1)
        if judged == len(whole) - 1:
            return


def _judged(model: UnitModel, windows: Sequence[_Window], state: Optional[State]) -> tuple[Tensor, Tensor, State]:
    """For each predicted token of some windows: whose it is, and its log-probability; and the state after them."""
    longest = max(len(window.tokens) - 1 for window in windows)
    tokens = np.zeros((len(windows), longest), np.int64)
    places, owners, targets = [], [], []
    for number, window in enumerate(windows):
        tokens[number, : len(window.tokens) - 1] = window.tokens[:-1]
        places.append(number * longest + np.arange(window.start, len(window.tokens) - 1))
        owners.append(np.full(len(places[-1]), window.owner))
        targets.append(window.tokens[1 + window.start :])
    device = next(model.parameters()).device
    hidden, after = model.step(torch.from_numpy(tokens).to(device), state)
    at = torch.from_numpy(np.concatenate(places)).to(device)
    wanted = torch.from_numpy(np.concatenate(targets)).to(device)
    found = -nats_of(model.logits(hidden.flatten(0, 1).index_select(0, at)), wanted)
    return torch.from_numpy(np.concatenate(owners)).to(device), found, after
