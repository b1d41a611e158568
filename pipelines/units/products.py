"""Matrix products with fixed weights: where nearly all of an encoder's time goes.

On a CPU in float32 the weights are packed once for oneDNN, which torch carries: 100 to 110 GFLOP/s a core where the
usual call reaches 60 to 95 (AMD EPYC 9004), GELU for nothing, and each row's result does not depend on how many rows
there are, bit for bit. Elsewhere, and where this torch lacks those operators, it is torch's own product.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Optional

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn


def pack(weight: Tensor) -> Any:
    """A weight (out, in) as oneDNN wants it."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)  # noqa: SLF001 - what torch.compile uses


def packed_product(x: Tensor, packed: Any, bias: Optional[Tensor], gelu: bool) -> Tensor:
    """OneDNN's product of `x` and a weight that was packed; torch.compile calls the same operator."""
    kind, algorithm = ("gelu", "none") if gelu else ("none", "")
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, kind, [], algorithm)  # noqa: SLF001
    return out


class Product(nn.Module):
    """`x @ weight.T + bias`, then GELU if `gelu`. `weight` (out, in), `bias` (out,) or None."""

    def __init__(self, weight: Tensor, bias: Optional[Tensor], gelu: bool = False) -> None:
        super().__init__()
        self.gelu = gelu
        self.bias: Optional[Tensor]
        self.weight: Tensor
        self._packed: Any = None
        self.register_buffer("bias", bias)
        if can_pack(weight):
            self._packed = pack(weight)
            weight = weight.new_empty(0)
        self.register_buffer("weight", weight)

    @property
    def packed(self) -> bool:
        """Whether the product is oneDNN's."""
        return self._packed is not None

    def forward(self, x: Tensor) -> Tensor:
        """`x` (rows, in) → (rows, out). Rows may overlap in memory (windows over a signal, by `as_strided`)."""
        if self._packed is not None:
            return packed_product(x, self._packed, self.bias, self.gelu)
        out = self._overlapping(x) if x.stride(0) < x.shape[1] else F.linear(x, self.weight, self.bias)
        return gelu_(out) if self.gelu else out

    def _overlapping(self, x: Tensor) -> Tensor:
        """Rows that overlap, in parts that do not: else torch would copy them out, each element several times."""
        step, width = x.stride(0), x.shape[1]
        out = F.linear(x[:, :step], self.weight[:, :step], self.bias)
        for start in range(step, width, step):
            out.addmm_(x[:, start : start + step], self.weight[:, start : start + step].t())
        return out


def gelu_(x: Tensor) -> Tensor:
    """GELU (the exact one, by the error function) in place."""
    out: Tensor = torch.ops.aten.gelu_(x)
    return out


def can_pack(weight: Tensor) -> bool:
    """Whether a weight like this one is packed for oneDNN."""
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and _packing_works()


@lru_cache(maxsize=1)
def _packing_works() -> bool:
    """Whether this torch, on this machine, has the operators and they give the right answer."""
    if not torch.backends.mkldnn.enabled:
        return False
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(9, 6, generator=generator)
    weight, bias = torch.randn(8, 12, generator=generator), torch.randn(8, generator=generator)
    try:
        packed = pack(weight)
        for rows in (signal.as_strided((4, 12), (12, 1)), signal.as_strided((8, 12), (6, 1))):
            found = packed_product(rows, packed, bias, gelu=True)
            if not torch.allclose(found, F.gelu(F.linear(rows.contiguous(), weight, bias)), atol=1e-5):
                return False
    except (RuntimeError, AttributeError, TypeError):
        return False
    return True
