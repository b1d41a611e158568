"""HuBERT's transformer: positional convolution and attention layers, over frames laid out without waste.

A layer sees frames as rows (rows, width), and does not care whose they are; only attention and the positional
convolution do. `EndToEnd` (CPU) has the frames of several waveforms one after the other, none of padding, so that a
waveform's result is the same, bit for bit, in any company. `Padded` (GPU) has as many rows for each waveform as the
longest has; the others' keys are masked.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, ContextManager, List, Mapping, Optional

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipelines.units.products import Product, gelu_

EPSILON = 1e-5
PROJECTIONS = ("query", "key", "value")


class Layout:
    """Whose the rows are."""

    def attend(self, qkv: Tensor, heads: int) -> Tensor:
        """Attention within each waveform: (rows, 3 × width) → (rows, width)."""
        raise NotImplementedError

    def waveforms(self, x: Tensor) -> List[Tensor]:
        """Batches (waveforms, frames, width) to which the positional convolution is applied, one by one."""
        raise NotImplementedError

    def zero(self, x: Tensor) -> Tensor:
        """The rows (rows, width), those of padding set to zero."""
        raise NotImplementedError


class EndToEnd(Layout):
    """Waveforms of `counts` frames, one after the other."""

    def __init__(self, counts: List[int]) -> None:
        self.counts = counts

    def attend(self, qkv: Tensor, heads: int) -> Tensor:
        """Each waveform by itself."""
        return _joined([_attention(part[None], heads, None)[0] for part in torch.split(qkv, self.counts)])

    def waveforms(self, x: Tensor) -> List[Tensor]:
        """Each waveform by itself."""
        return [part[None] for part in torch.split(x, self.counts)]

    def zero(self, x: Tensor) -> Tensor:
        """There is no padding."""
        return x


class Padded(Layout):
    """`batch` waveforms of `frames` rows each; `keep` (batch, frames) is true for their own, None: for all."""

    def __init__(self, batch: int, frames: int, keep: Optional[Tensor]) -> None:
        self.batch, self.frames, self.keep = batch, frames, keep

    def attend(self, qkv: Tensor, heads: int) -> Tensor:
        """All at once, the keys of padding masked."""
        mask = None if self.keep is None else self.keep[:, None, None, :]
        return _attention(qkv.view(self.batch, self.frames, -1), heads, mask).flatten(0, 1)

    def waveforms(self, x: Tensor) -> List[Tensor]:
        """All at once."""
        return [x.view(self.batch, self.frames, -1)]

    def zero(self, x: Tensor) -> Tensor:
        """Padding may hold anything, infinities too, which a product with zero would keep."""
        return x if self.keep is None else x.masked_fill(~self.keep.view(-1, 1), 0.0)


def _attention(qkv: Tensor, heads: int, mask: Optional[Tensor]) -> Tensor:
    """(batch, frames, 3 × width) → (batch, frames, width)."""
    batch, frames, _ = qkv.shape
    query, key, value = qkv.view(batch, frames, 3, heads, -1).permute(2, 0, 3, 1, 4)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return out.transpose(1, 2).reshape(batch, frames, -1)


def _joined(parts: List[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class Norm(nn.Module):
    """Layer norm over the last dimension."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str) -> None:
        super().__init__()
        self.register_buffer("weight", tensors[f"{name}.weight"])
        self.register_buffer("bias", tensors[f"{name}.bias"])

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → the same."""
        weight = self.get_buffer("weight")
        return F.layer_norm(x, weight.shape, weight, self.get_buffer("bias"), EPSILON)


def product(tensors: Mapping[str, Tensor], name: str, gelu: bool = False) -> Product:
    """The product of the linear layer of that name."""
    return Product(tensors[f"{name}.weight"], tensors[f"{name}.bias"], gelu)


class Layer(nn.Module):
    """One layer: attention and feed-forward, the norms after them or (`norm_first`) before."""

    def __init__(self, tensors: Mapping[str, Tensor], heads: int, norm_first: bool) -> None:
        super().__init__()
        self.heads, self.norm_first = heads, norm_first
        weights, biases = ([tensors[f"{name}.{kind}"] for name in PROJECTIONS] for kind in ("weight", "bias"))
        self.qkv = Product(torch.cat(weights), torch.cat(biases))
        self.out = product(tensors, "out")
        self.expand = product(tensors, "expand", gelu=True)
        self.contract = product(tensors, "contract")
        self.attention_norm, self.final_norm = Norm(tensors, "attention_norm"), Norm(tensors, "final_norm")

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """(rows, width) → the same."""
        if self.norm_first:
            x = x + self.out(layout.attend(self.qkv(self.attention_norm(x)), self.heads))
            out: Tensor = x + self.contract(self.expand(self.final_norm(x)))
            return out
        x = self.attention_norm(self.out(layout.attend(self.qkv(x), self.heads)).add_(x))
        normed: Tensor = self.final_norm(self.contract(self.expand(x)).add_(x))
        return normed


class Position(nn.Module):
    """x + GELU(convolution(x)): a grouped convolution over time, which tells the layers where a frame is.

    `tensors`: `weight` (width, width / groups, kernel), weight norm folded; `bias`; with BatchNorm `norm.weight`,
    `norm.bias`, `norm.mean`, `norm.variance`, applied before the convolution (whose padding is zero all the same).
    """

    def __init__(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        self.kernel, self.groups = int(config["conv_pos"]), int(config["conv_pos_groups"])
        self.normed = bool(config["conv_pos_batch_norm"])
        if self.normed:
            norm = {name: tensors[f"norm.{name}"].double() for name in ("weight", "bias", "mean", "variance")}
            scale = norm["weight"] * torch.rsqrt(norm["variance"] + EPSILON)
            self.register_buffer("scale", scale.to(dtype))
            self.register_buffer("shift", (norm["bias"] - norm["mean"] * scale).to(dtype))
        weight, bias = tensors["weight"].to(dtype), tensors["bias"].to(dtype)
        each = weight.permute(0, 2, 1).flatten(1).chunk(self.groups)
        products = [Product(part, own, gelu=True) for part, own in zip(each, bias.chunk(self.groups))]
        self.products = nn.ModuleList(products if products[0].packed else [])
        if not self.products:
            self.register_buffer("weight", weight)
            self.register_buffer("bias", bias)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """(rows, width) → the same. Rows of padding are zero, before and after BatchNorm."""
        signal = x
        if self.normed:
            signal = layout.zero(torch.addcmul(self.get_buffer("shift"), x, self.get_buffer("scale")))
        batches = layout.waveforms(signal)
        if self.products:
            return _joined([self._by_products(waveform) for batch in batches for waveform in batch]).add_(x)
        return _joined([self._by_convolution(batch) for batch in batches]).add_(x)

    def _by_products(self, x: Tensor) -> Tensor:
        """One waveform (frames, width) → the same: a product a group, over windows that overlap."""
        frames, width = x.shape
        each, before = width // self.groups, self.kernel // 2
        padded = x.new_zeros((self.groups, frames + self.kernel - 1, each))
        padded[:, before : before + frames] = x.view(frames, self.groups, each).transpose(0, 1)
        out = x.new_empty((frames, self.groups, each))
        for index, apply in enumerate(self.products):
            out[:, index] = apply(padded[index].as_strided((frames, self.kernel * each), (each, 1)))
        return out.view(frames, width)

    def _by_convolution(self, x: Tensor) -> Tensor:
        """Waveforms (batch, frames, width) → (batch × frames, width)."""
        with full_precision(x):
            out = F.conv1d(
                x.transpose(1, 2),
                self.get_buffer("weight"),
                self.get_buffer("bias"),
                padding=self.kernel // 2,
                groups=self.groups,
            )
        return gelu_(out[:, :, : x.shape[1]].transpose(1, 2).contiguous()).flatten(0, 1)


def full_precision(x: Tensor) -> ContextManager[None]:
    """Convolutions of float32 in float32: cuDNN would round their inputs to TF32 by default."""
    if x.device.type != "cuda" or x.dtype != torch.float32:
        return nullcontext()
    return torch.backends.cudnn.flags(
        enabled=torch.backends.cudnn.enabled,
        benchmark=torch.backends.cudnn.benchmark,
        deterministic=torch.backends.cudnn.deterministic,
        allow_tf32=False,
    )
