"""Language models of discrete units: the LSTM of the seed's recipe, and a decoder-only transformer.

Both map token ids (batch, length) to hidden states (batch, length, width) and, apart from that, to logits over the units
and EOS. Ids: 0 … V-1 are units, V is SOS, V+1 is EOS; SOS is never predicted. Sequences are padded on the right, which
changes nothing to their left: an LSTM runs from left to right, and attention is causal.
"""

from __future__ import annotations

import math
from typing import Any, Mapping, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional

State = list[tuple[Tensor, Tensor]]
"""What a model remembers of a prefix: for each layer hidden and cell state, or keys and values."""


class UnitModel(nn.Module):
    """What both have: embedding, head, loss."""

    vocabulary_size: int
    """Units, without SOS and EOS."""

    @property
    def sos(self) -> int:
        """The id that every sequence begins with."""
        return self.vocabulary_size

    @property
    def eos(self) -> int:
        """The id that every whole sequence ends with."""
        return self.vocabulary_size + 1

    def hidden(self, tokens: Tensor) -> Tensor:
        """Token ids (batch, length) → states (batch, length, width)."""
        raise NotImplementedError  # pragma: no cover - abstract

    def step(self, tokens: Tensor, state: Optional[State]) -> tuple[Tensor, State]:
        """The next tokens (batch, length) after what `state` remembers → states (batch, length, width), and it anew."""
        raise NotImplementedError  # pragma: no cover - abstract

    def logits(self, hidden: Tensor) -> Tensor:
        """States (…, width) → logits (…, V + 2), that of SOS -inf."""
        scores = self.head(hidden)  # type: ignore[operator]
        return scores.index_fill(-1, self._never, -torch.inf)  # type: ignore[arg-type]

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Sum of the negative log-probabilities (nats) of the targets (batch, length), -100 where there is none.

        Only states that have a target go through the head: with lengths as they are in speech, a third does not.
        """
        where = targets != IGNORED
        hidden = self.hidden(tokens)[where]
        return functional.cross_entropy(self.logits(hidden).float(), targets[where], reduction="sum")

    def _add_never(self) -> None:
        self.register_buffer("_never", torch.tensor([self.sos]), persistent=False)


IGNORED = -100


class Lstm(UnitModel):
    """Embedding → LSTM → linear, as the seed has it."""

    def __init__(
        self, vocabulary_size: int, embedding_dim: int, hidden_size: int, num_layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary_size
        self.embedding = nn.Embedding(vocabulary_size + 2, embedding_dim)
        between = dropout if num_layers > 1 else 0.0
        self.lstm = nn.LSTM(embedding_dim, hidden_size, num_layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size, vocabulary_size + 2)
        self._add_never()

    def hidden(self, tokens: Tensor) -> Tensor:
        """See UnitModel."""
        states, _ = self.lstm(self.embedding(tokens))
        return self.dropout(states)

    def step(self, tokens: Tensor, state: Optional[State]) -> tuple[Tensor, State]:
        """See UnitModel."""
        states, after = self.lstm(self.embedding(tokens), None if state is None else state[0])
        return self.dropout(states), [after]


class Transformer(UnitModel):
    """Decoder-only: pre-normalisation (RMS), rotary positions (Su et al. 2021), SwiGLU (Shazeer 2020), tied embedding."""

    def __init__(self, vocabulary_size: int, width: int, num_layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary_size
        self.embedding = nn.Embedding(vocabulary_size + 2, width)
        self.layers = nn.ModuleList(_Layer(width, heads, dropout) for _ in range(num_layers))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, vocabulary_size + 2, bias=False)
        self.dropout = nn.Dropout(dropout)
        self._initialise(num_layers)
        self.head.weight = self.embedding.weight
        self._add_never()

    def _initialise(self, num_layers: int) -> None:
        """As GPT-2: normal of 0.02, and less where residuals add up."""
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                spread = 0.02 / math.sqrt(2 * num_layers) if name.endswith(("out.weight", "down.weight")) else 0.02
                nn.init.normal_(weight, std=spread)

    def hidden(self, tokens: Tensor) -> Tensor:
        """See UnitModel."""
        return self.step(tokens, None)[0]

    def step(self, tokens: Tensor, state: Optional[State]) -> tuple[Tensor, State]:
        """See UnitModel."""
        before = 0 if state is None else state[0][0].shape[2]
        turns = _turns(before, tokens.shape[1], self.layers[0].size, tokens.device)  # type: ignore[arg-type]
        x, after = self.dropout(self.embedding(tokens)), []
        for number, layer in enumerate(self.layers):
            x, kept = layer(x, turns, None if state is None else state[number])
            after.append(kept)
        return self.norm(x), after


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
        rate = self.dropout.p if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=rate, is_causal=state is None
        )
        x = x + self.dropout(self.out(mixed.transpose(1, 2).reshape(batch, length, width)))
        gate, up = self.gate_up(self.norm_b(x)).chunk(2, dim=-1)
        return x + self.dropout(self.down(functional.silu(gate) * up)), (key, value)


def _turns(start: int, length: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary positions, (length, size) each."""
    rates = 10_000 ** (-torch.arange(0, size, 2, device=device, dtype=torch.float32) / size)
    angles = torch.outer(torch.arange(start, start + length, device=device, dtype=torch.float32), rates)
    both = torch.cat([angles, angles], dim=-1)
    return both.cos(), both.sin()


def _turned(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * turns[0].to(x.dtype) + torch.cat([-second, first], dim=-1) * turns[1].to(x.dtype)


def build(settings: Mapping[str, Any]) -> UnitModel:
    """The model that a checkpoint's settings describe."""
    if settings["model"] == "transformer":
        width = settings["hidden_size"]
        return Transformer(
            settings["vocabulary_size"], width, settings["num_layers"], settings["num_heads"], settings["dropout"]
        )
    names = ("vocabulary_size", "embedding_dim", "hidden_size", "num_layers", "dropout")
    return Lstm(*(settings[name] for name in names))
