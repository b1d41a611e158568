"""Language models of discrete units: the LSTM of the published recipe, and a decoder-only transformer.

Token ids: 0 … V-1 are units; V is the boundary. As an input it stands before every sequence (SOS), as an output after
it (EOS), so that no other special token exists and none can be predicted by mistake. Sequences are padded on the
right, which changes nothing to their left: an LSTM runs from left to right, and attention is causal.
"""

from __future__ import annotations

import math
from typing import Any, Mapping, NamedTuple, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional

State = list[tuple[Tensor, Tensor]]
"""What a model remembers of a prefix, for each layer: hidden and cell state, or keys and values. Batch first."""


class Batch(NamedTuple):
    """Sequences that are read together.

    `tokens`: ids (batch, longest), int64, padded with 0. `places` (predictions,): where in the flattened tokens
    something is to be predicted; `targets` (predictions,): what.
    """

    tokens: Tensor
    places: Tensor
    targets: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        if device.type == "cuda":
            return Batch(*(part.pin_memory().to(device, non_blocking=True) for part in self))
        return Batch(*(part.to(device) for part in self))


class UnitModel(nn.Module):
    """What both kinds have in common."""

    vocabulary_size: int
    """Units, without the boundary."""
    context: Optional[int]
    """Tokens that a prediction may rest on; None: all before it."""

    @property
    def boundary(self) -> int:
        """The id before every sequence, and after it."""
        return self.vocabulary_size

    def step(self, tokens: Tensor, state: Optional[State]) -> tuple[Tensor, State]:
        """Token ids (batch, length) after what `state` remembers → states (batch, length, width), and it anew."""
        raise NotImplementedError  # pragma: no cover - abstract

    def logits(self, hidden: Tensor) -> Tensor:
        """States (…, width) → logits (…, V + 1)."""
        raise NotImplementedError  # pragma: no cover - abstract

    def nats(self, batch: Batch) -> Tensor:
        """Negative log-probability of each target, in single precision at least (predictions,).

        Only states with a target go through the head, which is most of the work for vocabularies of thousands.
        """
        hidden = self.step(batch.tokens, None)[0].flatten(0, 1).index_select(0, batch.places)
        return nats_of(self.logits(hidden), batch.targets)


class Lstm(UnitModel):
    """Embedding → LSTM → linear, as in the published recipe.

    The layers are modules of their own, with PyTorch's own dropout between them: cuDNN's, inside a module of several
    layers, has a random state that no checkpoint can hold.
    """

    def __init__(
        self, vocabulary_size: int, embedding_dim: int, hidden_size: int, num_layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.vocabulary_size, self.context = vocabulary_size, None
        self.embedding = nn.Embedding(vocabulary_size + 1, embedding_dim)
        widths = [embedding_dim, *[hidden_size] * (num_layers - 1)]
        self.layers = nn.ModuleList(nn.LSTM(width, hidden_size, batch_first=True) for width in widths)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size, vocabulary_size + 1)

    def step(self, tokens: Tensor, state: Optional[State]) -> tuple[Tensor, State]:
        """See UnitModel. A layer's state: (batch, width) both."""
        x, after = self.embedding(tokens), []
        for number, layer in enumerate(self.layers):
            before = None if state is None else (state[number][0][None], state[number][1][None])
            x, (hidden, cell) = layer(x, before)
            x = self.dropout(x)
            after.append((hidden[0], cell[0]))
        return x, after

    def logits(self, hidden: Tensor) -> Tensor:
        """See UnitModel."""
        scores: Tensor = self.head(hidden)
        return scores


class Transformer(UnitModel):
    """Decoder-only: pre-normalisation (RMS), rotary positions (Su et al. 2021), SwiGLU (Shazeer 2020), tied embedding.

    `context`: the longest stretch that it is trained on; nobody knows what it makes of more.
    """

    def __init__(  # noqa: PLR0917
        self, vocabulary_size: int, width: int, num_layers: int, heads: int, dropout: float, context: int
    ) -> None:
        super().__init__()
        self.vocabulary_size, self.context = vocabulary_size, context
        self.embedding = nn.Embedding(vocabulary_size + 1, width)
        self.layers = nn.ModuleList(_Layer(width, heads, dropout) for _ in range(num_layers))
        self.norm = nn.RMSNorm(width)
        self.dropout = nn.Dropout(dropout)
        self._size = width // heads
        self._initialise(num_layers)

    def _initialise(self, num_layers: int) -> None:
        """As GPT-2: normal of 0.02, and less where residuals add up."""
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                spread = 0.02 / math.sqrt(2 * num_layers) if name.endswith(("out.weight", "down.weight")) else 0.02
                nn.init.normal_(weight, std=spread)

    def step(self, tokens: Tensor, state: Optional[State]) -> tuple[Tensor, State]:
        """See UnitModel. A layer's state: (batch, heads, length, size) both."""
        x, after = self.dropout(self.embedding(tokens)), []
        turns = _turns(0 if state is None else state[0][0].shape[2], tokens.shape[1], self._size, x)
        for number, layer in enumerate(self.layers):
            x, kept = layer(x, turns, None if state is None else state[number])
            after.append(kept)
        return self.norm(x), after

    def logits(self, hidden: Tensor) -> Tensor:
        """See UnitModel."""
        return functional.linear(hidden, self.embedding.weight)


class _Layer(nn.Module):
    """Attention and feed-forward, each around a residual."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.norm_a, self.norm_b = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        inner = 64 * max(1, round(8 * width / 3 / 64))
        self.gate_up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, turns: tuple[Tensor, Tensor], state: Optional[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm_a(x)).view(batch, length, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        query, key, value = _turned(qkv[0], turns), _turned(qkv[1], turns), qkv[2]
        if state is not None:
            key, value = torch.cat([state[0], key], dim=2), torch.cat([state[1], value], dim=2)
        mask = None
        if state is not None and length > 1:
            mask = torch.ones(length, key.shape[2], dtype=torch.bool, device=x.device).tril(key.shape[2] - length)
        mixed = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=self.dropout.p if self.training else 0.0,
            is_causal=state is None,
        )
        x = x + self.dropout(self.out(mixed.transpose(1, 2).reshape(batch, length, width)))
        gate, up = self.gate_up(self.norm_b(x)).chunk(2, dim=-1)
        return x + self.dropout(self.down(functional.silu(gate) * up)), (key, value)


def _turns(start: int, length: int, size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary positions, (length, size) each."""
    kind = torch.float64 if like.dtype == torch.float64 else torch.float32
    rates = 10_000 ** (-torch.arange(0, size, 2, device=like.device, dtype=kind) / size)
    angles = torch.outer(torch.arange(start, start + length, device=like.device, dtype=kind), rates)
    both = torch.cat([angles, angles], dim=-1)
    return both.cos(), both.sin()


def _turned(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * turns[0].to(x.dtype) + torch.cat([-second, first], dim=-1) * turns[1].to(x.dtype)


def nats_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-probability (predictions,) of targets (predictions,) under logits (predictions, V + 1)."""
    precise = logits if logits.dtype == torch.float64 else logits.float()
    return functional.cross_entropy(precise, targets, reduction="none")


def kept(state: State, rows: Tensor) -> State:
    """The state of some sequences of the batch, by their numbers (int64)."""
    return [(first.index_select(0, rows), second.index_select(0, rows)) for first, second in state]


def joined(states: list[State]) -> State:
    """The states of several batches as one; for transformers, all of the same length."""
    return [
        (torch.cat([first for first, _ in layer]), torch.cat([second for _, second in layer]))
        for layer in zip(*states)
    ]


def build(settings: Mapping[str, Any]) -> UnitModel:
    """The model that settings describe, its weights random."""
    size, layers, dropout = settings["vocabulary_size"], settings["num_layers"], settings["dropout"]
    if settings["model"] == "transformer":
        return Transformer(
            size, settings["hidden_size"], layers, settings["num_heads"], dropout, settings["max_length"]
        )
    return Lstm(size, settings["embedding_dim"], settings["hidden_size"], layers, dropout)
