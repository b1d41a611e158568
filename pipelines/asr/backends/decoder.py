"""One step of a plain decoder (Llama, Mistral, Qwen 2 and 3): the arithmetic of transformers' layers in fewer calls.

With a token a row there is so little to compute that the calls themselves are the time. Projections of the same input
are one matrix here, queries and keys are normalised and rotated together.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional, Protocol, Sequence

import torch
from torch.nn import functional as nn


class Held(Protocol):
    """What holds the keys and values of a layer."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add (rows, heads, tokens, width); all that are held."""
        ...


class _Linear(NamedTuple):
    weight: torch.Tensor
    bias: Optional[torch.Tensor]

    def of(self, given: torch.Tensor) -> torch.Tensor:
        return nn.linear(given, self.weight, self.bias)


class _Norm(NamedTuple):
    """Root mean square normalisation in fp32; its weight may be one for each head."""

    weight: torch.Tensor
    eps: float

    def of(self, given: torch.Tensor) -> torch.Tensor:
        return nn.rms_norm(given.float(), given.shape[-1:], None, self.eps).to(given.dtype) * self.weight


class _Layer(NamedTuple):
    before: _Norm
    inner: _Linear
    heads: Optional[_Norm]
    out: _Linear
    after: _Norm
    wide: _Linear
    act: Any
    narrow: _Linear
    scaling: float


class Decoder:
    """A language model of transformers, one token a row at a time."""

    def __init__(self, llm: Any) -> None:
        """The weights are shared with `llm`, which goes on working."""
        config = llm.config
        self._width = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        self._queries, self._keys = int(config.num_attention_heads), int(config.num_key_value_heads)
        self._embed, self._rotary = llm.get_input_embeddings(), llm.model.rotary_emb
        self._norm, self._head = _norm(llm.model.norm), _joined([llm.lm_head])
        self._layers = [self._layer(layer) for layer in llm.model.layers]

    def _layer(self, layer: Any) -> _Layer:
        own, mlp = layer.self_attn, layer.mlp
        heads = None
        if hasattr(own, "q_norm"):
            both = (own.q_norm.weight, self._queries), (own.k_norm.weight, self._keys)
            heads = _Norm(torch.cat([weight.expand(count, -1) for weight, count in both]), _norm(own.q_norm).eps)
        return _Layer(
            _norm(layer.input_layernorm), _joined([own.q_proj, own.k_proj, own.v_proj]), heads, _joined([own.o_proj]),
            _norm(layer.post_attention_layernorm), _joined([mlp.gate_proj, mlp.up_proj]), mlp.act_fn,
            _joined([mlp.down_proj]), float(own.scaling),
        )  # fmt: skip

    def step(
        self, token: torch.Tensor, positions: torch.Tensor, seen: torch.Tensor, held: Sequence[Held]
    ) -> torch.Tensor:
        """The scores (rows, vocabulary) of what follows `token` (rows,) at `positions` (rows, 1).

        `seen` (rows, 1, 1, tokens) is added to the attention to all tokens up to this one, which `held` gets.
        """
        hidden = self._embed(token)
        cos, sin = self._rotary(hidden, positions)
        rows, half, turned = len(token), self._width // 2, self._queries + self._keys
        for layer, cache in zip(self._layers, held):
            made = layer.inner.of(layer.before.of(hidden)).view(rows, -1, self._width)
            both = made[:, :turned] if layer.heads is None else layer.heads.of(made[:, :turned])
            both = both * cos + torch.cat((-both[..., half:], both[..., :half]), dim=-1) * sin
            keys, values = cache.update(both[:, self._queries :, None], made[:, turned:, None])
            grouped = both[:, : self._queries].view(rows, self._keys, -1, self._width)
            heard = nn.scaled_dot_product_attention(grouped, keys, values, attn_mask=seen, scale=layer.scaling)
            hidden = hidden + layer.out.of(heard.reshape(rows, -1))
            gate, up = layer.wide.of(layer.after.of(hidden)).chunk(2, dim=-1)
            hidden = hidden + layer.narrow.of(layer.act(gate) * up)
        return self._head.of(self._norm.of(hidden))


def _norm(module: Any) -> _Norm:
    return _Norm(module.weight, float(module.variance_epsilon))


def _joined(modules: Sequence[Any]) -> _Linear:
    """Projections of one input as one; the modules keep their parts of it, so that nothing is held twice."""
    if len(modules) == 1:
        return _Linear(modules[0].weight, modules[0].bias)
    weight = torch.cat([module.weight for module in modules])
    for module, part in zip(modules, weight.split([len(module.weight) for module in modules])):
        module.weight.data = part
    biases = [module.bias for module in modules if module.bias is not None]
    return _Linear(weight, torch.cat(biases) if biases else None)
