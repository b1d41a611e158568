"""Ways to train a language model on sequences of very different lengths, one batch at a time, for lm_speed.

All train the same architecture by the same optimiser; they differ in what they do about length. `padded` is the
program that the published recipe describes: sequences in random order, padded to the longest, logits everywhere. (Its
nested tensors cannot be run: nn.LSTM rejects them.)
"""

from __future__ import annotations

from typing import Iterator, List, NamedTuple, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from pipelines.language import models
from pipelines.lm import batching

SIZE, BATCH, BATCH_ATTENDED = 2000, 32, 16
SETTINGS = {
    "model": "lstm",
    "vocabulary_size": SIZE,
    "embedding_dim": 256,
    "hidden_size": 512,
    "num_layers": 2,
    "num_heads": 8,
    "dropout": 0.1,
    "max_length": 2048,
}


class PlainLstm(nn.Module):
    """Embedding, LSTM, linear, as the published recipe has it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SIZE + 1, 256)
        self.lstm = nn.LSTM(256, 512, 2, batch_first=True, dropout=0.1)
        self.head = nn.Linear(512, SIZE + 1)


class Batch(NamedTuple):
    """Sequences with SOS in front and EOS behind, and how many tokens they predict."""

    wholes: List[Tensor]
    tokens: int


def batch_of(sequences: Sequence[np.ndarray]) -> Batch:
    wholes = [torch.from_numpy(np.concatenate([[SIZE], each, [SIZE]]).astype(np.int64)) for each in sequences]
    return Batch(wholes, sum(len(each) - 1 for each in wholes))


class Program:
    """A model and its optimiser. `batches`: some of an epoch's, evenly spread; `step`: one update on one of them."""

    name = ""
    sequences_most = BATCH

    def __init__(self, sequences: Sequence[np.ndarray]) -> None:
        torch.manual_seed(0)
        self.sequences = sequences
        self.lengths = np.array([len(each) + 1 for each in sequences])
        self.model = self.build()
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=1e-3)

    def build(self) -> nn.Module:
        return PlainLstm()

    def order(self) -> List[np.ndarray]:
        """An epoch's batches: numbers of sequences."""
        order = np.random.default_rng(0).permutation(len(self.sequences))
        size = self.sequences_most
        return [order[start : start + size] for start in range(0, len(order) - size + 1, size)]

    def batches(self, count: int, turn: int) -> Iterator[Batch]:
        """`count` of them at even distances when ordered by length, other ones every turn."""
        order = sorted(self.order(), key=lambda numbers: int(self.lengths[numbers].max()))
        for place in range(count):
            at = int((place + (0.5 + 0.618 * turn) % 1) / count * len(order))
            yield batch_of([self.sequences[number] for number in order[at]])

    def step(self, batch: Batch) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        self.loss(batch).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()

    def loss(self, batch: Batch) -> Tensor:
        raise NotImplementedError


class Padded(Program):
    name = "padded, random order (the published recipe)"

    def loss(self, batch: Batch) -> Tensor:
        tokens = pad_sequence([each[:-1] for each in batch.wholes], batch_first=True)
        targets = pad_sequence([each[1:] for each in batch.wholes], batch_first=True, padding_value=-100)
        logits = self.model.head(self.model.lstm(self.model.embedding(tokens))[0])
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


class Packed(Program):
    name = "PackedSequence, random order"

    def loss(self, batch: Batch) -> Tensor:
        lengths = torch.tensor([len(each) - 1 for each in batch.wholes])
        tokens = pad_sequence([each[:-1] for each in batch.wholes], batch_first=True)
        packed = pack_padded_sequence(self.model.embedding(tokens), lengths, batch_first=True, enforce_sorted=False)
        targets = pad_sequence([each[1:] for each in batch.wholes], batch_first=True)
        wanted = pack_padded_sequence(targets, lengths, batch_first=True, enforce_sorted=False)
        return functional.cross_entropy(self.model.head(self.model.lstm(packed)[0].data), wanted.data)


class Stream(Program):
    name = "one flat stream in stretches of 256 (not exact: state crosses items)"

    def batches(self, count: int, turn: int) -> Iterator[Batch]:
        order = np.random.default_rng(turn).permutation(len(self.sequences))
        flat = np.concatenate([np.append(self.sequences[number], SIZE) for number in order[: BATCH * 40]])
        rows = torch.from_numpy(flat[: len(flat) // BATCH * BATCH].astype(np.int64)).view(BATCH, -1)
        for place in range(count):
            piece = rows[:, place * 256 : place * 256 + 257]
            if piece.shape[1] > 1:
                yield Batch([piece], piece.shape[0] * (piece.shape[1] - 1))

    def loss(self, batch: Batch) -> Tensor:
        (piece,) = batch.wholes
        logits = self.model.head(self.model.lstm(self.model.embedding(piece[:, :-1]))[0])
        return functional.cross_entropy(logits.flatten(0, 1), piece[:, 1:].flatten())


class Ours(Program):
    """Bucketed by length, and only states with a target go through the head."""

    name = "**bucketed, head where something is predicted (voxarray)**"
    kind, tokens_most = "lstm", 1 << 16

    def build(self) -> nn.Module:
        return models.build({**SETTINGS, "model": self.kind})

    def order(self) -> List[np.ndarray]:
        found = batching.batches(self.lengths, self.tokens_most, self.sequences_most, (0, 0))
        return [found.of(number) for number in range(found.total)]

    def loss(self, batch: Batch) -> Tensor:
        tokens = pad_sequence([each[:-1] for each in batch.wholes], batch_first=True)
        where = torch.arange(tokens.shape[1]) < torch.tensor([len(each) - 1 for each in batch.wholes])[:, None]
        targets = pad_sequence([each[1:] for each in batch.wholes], batch_first=True)
        places = where.flatten().nonzero().squeeze(1)
        return self.model.nats(models.Batch(tokens, places, targets.flatten()[places])).sum() / batch.tokens


class OursRandom(Ours):
    name = "head where something is predicted, random order"

    def order(self) -> List[np.ndarray]:
        return Program.order(self)


class OursEverywhere(Ours):
    name = "bucketed, logits everywhere"

    def build(self) -> nn.Module:
        return PlainLstm()

    loss = Padded.loss


class OursTokens(Ours):
    name = "voxarray, batches of 8,192 tokens (`--batch-size 4096 --batch-tokens 8192`)"
    sequences_most, tokens_most = 4096, 8192


class PaddedTransformer(Ours):
    name, kind, sequences_most = "padded, random order", "transformer", BATCH_ATTENDED

    def order(self) -> List[np.ndarray]:
        return Program.order(self)

    def loss(self, batch: Batch) -> Tensor:
        tokens = pad_sequence([each[:-1] for each in batch.wholes], batch_first=True)
        targets = pad_sequence([each[1:] for each in batch.wholes], batch_first=True, padding_value=-100)
        logits = self.model.logits(self.model.step(tokens, None)[0])
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


class NestedTransformer(PaddedTransformer):
    """Jagged tensors through all that takes them; attention falls back to a loop over sequences on a CPU."""

    name = "nested (jagged) tensors, random order"

    def loss(self, batch: Batch) -> Tensor:
        lengths = [len(each) - 1 for each in batch.wholes]
        offsets = torch.tensor([0, *np.cumsum(lengths)])
        x = self.model.embedding(torch.cat([each[:-1] for each in batch.wholes]))
        turns = models._turns(0, max(lengths), self.model._size, x)
        at = torch.cat([torch.arange(length) for length in lengths])
        for layer in self.model.layers:
            x = self.layer(layer, x, (turns[0][at][:, None], turns[1][at][:, None]), offsets)
        targets = torch.cat([each[1:] for each in batch.wholes])
        return functional.cross_entropy(self.model.logits(self.model.norm(x)), targets)

    @staticmethod
    def layer(layer: nn.Module, x: Tensor, turns: tuple, offsets: Tensor) -> Tensor:
        """One layer on the values of a jagged tensor (tokens, width)."""
        query, key, value = layer.qkv(layer.norm_a(x)).view(len(x), 3, layer.heads, layer.size).unbind(1)
        parts = [models._turned(query, turns), models._turned(key, turns), value]
        jagged = [torch.nested.nested_tensor_from_jagged(part.contiguous(), offsets).transpose(1, 2) for part in parts]
        mixed = functional.scaled_dot_product_attention(*jagged, is_causal=True).transpose(1, 2).values()
        x = x + layer.out(mixed.reshape(len(x), -1))
        gate, up = layer.gate_up(layer.norm_b(x)).chunk(2, dim=-1)
        return x + layer.down(functional.silu(gate) * up)


class OursTransformer(Ours):
    name, kind = "**bucketed, head where something is predicted (voxarray)**", "transformer"
    sequences_most = BATCH_ATTENDED


LSTMS = (Padded, OursRandom, OursEverywhere, Ours, OursTokens, Stream)
TRANSFORMERS = (PaddedTransformer, NestedTransformer, OursTransformer)


def nested_lstm() -> str:
    """What happens when an nn.LSTM is given nested tensors."""
    nested = torch.nested.nested_tensor([torch.randn(3, 8), torch.randn(5, 8)], layout=torch.jagged)
    try:
        nn.LSTM(8, 8, batch_first=True)(nested)
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
    return "runs"
