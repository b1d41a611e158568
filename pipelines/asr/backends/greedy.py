"""Greedy generation for plain decoders: the tokens of `generate()`, without what that does anew at every one.

transformers' own loop copies the whole cache to add a token to it, builds masks and arguments from nothing, and
computes a row that has ended until the last row of the batch has. Here the cache is written in place, the mask is
there from the beginning, rows that have ended leave the batch, and a token is computed in few calls (`decoder`).
"""

from __future__ import annotations

from typing import Any, Sequence
from weakref import WeakKeyDictionary

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from pipelines.asr.backends.decoder import Decoder

KINDS = ("llama", "mistral", "qwen2", "qwen3")
"""`model_type` of the decoders that are known to say the same here: every layer sees all that was said before."""
_BLOCK = 64
"""Tokens that the cache has room for whenever it is made larger."""
_LEAVING = 4
"""Rows that have ended are carried along until they are a share of 1 in so many."""

_READY: WeakKeyDictionary[Any, Decoder] = WeakKeyDictionary()


def suits(llm: Any) -> bool:
    """Whether a language model of transformers can be run here."""
    config = llm.config
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    return (
        config.model_type in KINDS
        and set(kinds) == {"full_attention"}
        and not getattr(config, "sliding_window", None)
        and config._attn_implementation == "sdpa"  # noqa: SLF001 - there is no public way to ask
    )


class _Layer(CacheLayerMixin):
    """Keys and values of one layer, (rows, heads, room, width), of which the first `length` places are taken."""

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.length = 0
        self._held: tuple[torch.Tensor, torch.Tensor] = (torch.empty(0, 0, 0, 0), torch.empty(0, 0, 0, 0))

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing is to be done: `update` makes room."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the states (rows, heads, tokens, width) of new tokens; all that are held now."""
        end = self.length + key_states.shape[2]
        keys, values = self._held
        if end > keys.shape[2]:
            self._held = keys, values = self._larger(keys, key_states, end), self._larger(values, value_states, end)
        keys[:, :, self.length : end] = key_states
        values[:, :, self.length : end] = value_states
        self.length = end
        return keys[:, :, :end], values[:, :, :end]

    def _larger(self, held: torch.Tensor, new: torch.Tensor, end: int) -> torch.Tensor:
        rows, heads, _, width = new.shape
        made = new.new_empty(rows, heads, end + _BLOCK, width)
        if self.length:
            made[:, :, : self.length] = held[:, :, : self.length]
        return made

    def keep(self, rows: torch.Tensor) -> None:
        """Only these rows from now on."""
        keys, values = self._held
        self._held = keys.index_select(0, rows), values.index_select(0, rows)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The length and offset of what new tokens will see."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """How many tokens are held."""
        return self.length

    def get_max_length(self) -> int:
        """There is no maximum."""
        return -1


@torch.inference_mode()
def generate(
    llm: Any, embedded: torch.Tensor, mask: torch.Tensor, limits: Sequence[int], ends: int
) -> list[list[int]]:
    """The tokens that follow each row, at most as many as its limit says, without `ends`, which ends a row.

    `embedded` (rows, tokens, width) and `mask` (rows, tokens), 1 where a token is real, are padded on the left.
    A row that did not end has as many tokens as its limit.
    """
    count, begun = mask.shape
    device = mask.device
    layers = [_Layer() for _ in range(llm.config.num_hidden_layers)]
    cache = Cache(layers=list(layers))
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    scores = llm(
        inputs_embeds=embedded, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]  # fmt: skip
    decoder = _decoder(llm)
    here = _Rows(mask, positions[:, -1:], torch.tensor(limits, device=device), max(limits), embedded.dtype)
    said = torch.full((count, max(limits)), ends, device=device)
    every = _look_every(device)
    for step in range(max(limits)):
        token = scores.argmax(dim=-1)
        said[here.places, step] = token
        here.ended |= (token == ends) | (here.limits <= step + 1)
        if (step + 1) % every == 0 or step + 1 == max(limits):
            left = (~here.ended).nonzero()[:, 0]
            if not len(left):
                break
            if (len(here.ended) - len(left)) * _LEAVING >= len(here.ended):
                here.keep(left)
                token = token[left]
                for layer in layers:
                    layer.keep(left)
        here.positions += 1
        scores = decoder.step(token, here.positions, here.seen[..., : begun + step + 1], layers)
    return [until(ends, row[:limit]) for row, limit in zip(said.tolist(), limits)]


class _Rows:
    """The rows that are still in the batch."""

    def __init__(
        self, mask: torch.Tensor, positions: torch.Tensor, limits: torch.Tensor, most: int, dtype: torch.dtype
    ) -> None:
        self.places = torch.arange(len(mask), device=mask.device)
        """Which rows of the whole batch they are."""
        self.positions, self.limits = positions, limits
        self.ended = torch.zeros(len(mask), dtype=torch.bool, device=mask.device)
        real = torch.nn.functional.pad(mask.bool(), (0, most), value=True)
        self.seen = torch.zeros(real.shape, dtype=dtype, device=mask.device).masked_fill_(~real, float("-inf"))
        self.seen = self.seen[:, None, None]
        """What is added to a new token's attention: (rows, 1, 1, tokens), all that will be said included."""

    def keep(self, left: torch.Tensor) -> None:
        """Only these from now on."""
        self.places, self.positions, self.limits, self.ended, self.seen = (
            each.index_select(0, left) for each in (self.places, self.positions, self.limits, self.ended, self.seen)
        )


def _decoder(llm: Any) -> Decoder:
    """The steps of a language model, made ready once."""
    found = _READY.get(llm)
    if found is None:
        found = _READY[llm] = Decoder(llm)
    return found


def _look_every(device: torch.device) -> int:
    """Tokens between two looks at which rows have ended: on a GPU, to look is to wait for it."""
    return 1 if device.type == "cpu" else 8


def until(ends: int, row: list[int]) -> list[int]:
    """What of a row stands before the token that ends it; all of it where it has none."""
    return row[: row.index(ends)] if ends in row else row
