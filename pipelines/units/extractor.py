"""HuBERT's convolutions over the waveform, as matrix products over overlapping windows of frames.

With the channels of a frame side by side in memory, a convolution of kernel k and stride s is one product of windows
(rows of k frames, s frames apart) with the weights: nothing is copied, nothing transposed. The group norm after the
first convolution is affine in the window once its statistics are known, and these follow from the windows' mean and
covariance, a matrix of 10 × 10 (in float64): so it is folded into that convolution's weights, waveform by waveform,
over its own samples alone. Everything else is local in time, so it goes in blocks that stay in the cache.
"""

from __future__ import annotations

from typing import Any, Callable, List, Mapping, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipelines.units.products import Product, gelu_

CPU_BLOCK = 64 * 320
"""Samples of a block: the first convolution's output of a block takes 8 MB (512 channels)."""
GPU_BLOCK = 4096 * 320
PART = 1 << 17
"""Windows whose statistics are taken at once."""
EPSILON = 1e-5


class Extractor(nn.Module):
    """The feature extractor. `tensors`: `I.weight` (out, in, kernel), `I.bias`, `I.norm.weight`, `I.norm.bias`."""

    def __init__(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        self.layers: List[Tuple[int, int, int]] = [tuple(each) for each in config["conv_layers"]]
        self.grouped = config["extractor_mode"] == "group_norm"
        self.dtype = dtype
        self.hop = 1
        for _, _, stride in self.layers:
            self.hop *= stride
        self.norms = nn.ParameterDict()
        for index in range(1 if self.grouped else len(self.layers)):
            for name in ("weight", "bias"):
                value = tensors[f"{index}.norm.{name}"]
                self.norms[f"{index} {name}"] = nn.Parameter(value.to(_first(dtype, index)), requires_grad=False)
        self.products = nn.ModuleList()
        for index in range(len(self.layers)):
            bias = tensors.get(f"{index}.bias")
            weight = tensors[f"{index}.weight"].permute(0, 2, 1).flatten(1).to(_first(dtype, index))
            if index == 0 and self.grouped:  # its bias vanishes in the norm
                self.register_buffer("first", weight.double())
            else:
                fused = self.grouped
                self.products.append(Product(weight, None if bias is None else bias.to(weight.dtype), fused))

    def frames(self, samples: int) -> int:
        """Frames that a waveform of so many samples has."""
        return int(self.frames_of(torch.tensor(samples)))

    def frames_of(self, samples: Tensor) -> Tensor:
        """`frames` of many lengths at once."""
        for _, kernel, stride in self.layers:
            samples = torch.clamp((samples - kernel).div(stride, rounding_mode="floor") + 1, min=0)
        return samples

    def samples(self, frames: int) -> int:
        """Samples that so many frames look at."""
        return self._rows(frames)[0]

    def _rows(self, frames: int) -> List[int]:
        """Rows that go into each layer, and that come out of the last, for so many frames of output."""
        rows = [frames]
        for _, kernel, stride in reversed(self.layers):
            rows.append((rows[-1] - 1) * stride + kernel)
        return rows[::-1]

    def one(self, waveform: Tensor) -> Tensor:
        """Features (frames, channels) of a whole waveform (samples,), float32; it is at least one frame long."""
        frames = self.frames(len(waveform))
        first = self._first_of(waveform)
        longest = max(1, (CPU_BLOCK if waveform.device.type == "cpu" else GPU_BLOCK) // self.hop)
        blocks = []
        for start in range(0, frames, longest):
            count = min(longest, frames - start)
            rows = self._rows(count)
            piece = waveform[start * self.hop : start * self.hop + rows[0]]
            blocks.append(self._rest(first(_windows(piece[:, None], self.layers[0], rows[1])), rows))
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks)

    def many(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Features (batch, frames, channels) of waveforms (batch, samples) of these lengths, on a GPU.

        They are laid end to end, each filled up to whole frames, so that a layer is one product for all of them.
        The frames at a waveform's end that look into the next one are beyond its own, and are cut off.
        """
        batch, samples = waveforms.shape
        frames, pitch = self.frames(samples), -(-samples // self.hop) * self.hop
        at_once = max(1, GPU_BLOCK // pitch)
        if at_once > 1:
            parts = [
                self._end_to_end(waveforms[start : start + at_once], lengths[start : start + at_once], pitch)
                for start in range(0, batch, at_once)
            ]
            return torch.cat(parts)[:, :frames]
        out = waveforms.new_zeros((batch, frames, self.layers[-1][0]), dtype=self.dtype)
        for index, length in enumerate(lengths.tolist()):
            if length >= self.samples(1):
                found = self.one(waveforms[index, :length])
                out[index, : len(found)] = found
        return out

    def _end_to_end(self, waveforms: Tensor, lengths: Tensor, pitch: int) -> Tensor:
        batch, samples = waveforms.shape
        channels, kernel, stride = self.layers[0]
        frames = pitch // self.hop
        rows = self._rows(batch * frames)
        flat = waveforms.new_zeros(rows[0] + pitch)
        flat[: batch * pitch].view(batch, pitch)[:, :samples] = waveforms
        each = pitch // stride
        windows = flat.as_strided((batch, each, kernel), (pitch, stride, 1))
        out = flat.new_zeros((max(rows[1], batch * each), channels))
        if self.grouped:
            weight, bias = self._fold(waveforms, lengths)
            torch.baddbmm(
                bias[:, None], windows, weight.transpose(1, 2), out=out[: batch * each].view(batch, each, -1)
            )
        else:
            out[: batch * each] = self.products[0](windows.reshape(batch * each, kernel))
        return self._rest(self._after_first(out), rows).view(batch, frames, -1)

    def _first_of(self, waveform: Tensor) -> Callable[[Tensor], Tensor]:
        """The first convolution and all that follows it up to the second, for this waveform."""
        if not self.grouped:
            return lambda windows: self._after_first(self.products[0](windows))
        weight, bias = self._fold(waveform[None], None)
        product = Product(weight[0], bias[0], gelu=True)
        return lambda windows: self._to_dtype(product(windows))

    def _fold(self, waveforms: Tensor, lengths: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
        """The first convolution with its group norm: weights (batch, channels, kernel), biases (batch, channels)."""
        mean, covariance = self._moments(waveforms, lengths)
        first = self.get_buffer("first")
        variance = ((first @ covariance) * first).sum(2).clamp_(min=0)
        weight = first * (torch.rsqrt(variance + EPSILON) * self.norms["0 weight"])[:, :, None]
        bias = self.norms["0 bias"] - (weight @ mean.transpose(1, 2))[:, :, 0]
        return weight.float(), bias.float()

    def _moments(self, waveforms: Tensor, lengths: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
        """Mean (batch, 1, kernel) and covariance (batch, kernel, kernel) of the first windows, in float64."""
        _, kernel, stride = self.layers[0]
        windows = waveforms.unfold(1, kernel, stride)
        total, device = windows.shape[1], waveforms.device
        valid = torch.full((len(waveforms), 1, 1), total, device=device)
        if lengths is not None:
            own = ((lengths - kernel).div(stride, rounding_mode="floor") + 1).clamp(min=1)
            valid = own.to(device)[:, None, None]
        index = torch.arange(total, device=device)[None, :, None]
        mean = waveforms.new_zeros((len(waveforms), 1, kernel), dtype=torch.float64)
        covariance = mean.new_zeros((len(waveforms), kernel, kernel))
        # In parts, so that the memory of a long waveform's windows stays bounded.
        parts = [slice(start, start + PART) for start in range(0, total, PART)]
        for each in parts:
            part = windows[:, each].double()
            mean += (part if lengths is None else part.masked_fill(index[:, each] >= valid, 0.0)).sum(1, keepdim=True)
        mean /= valid
        for each in parts:
            part = windows[:, each].double() - mean
            part = part if lengths is None else part.masked_fill_(index[:, each] >= valid, 0.0)
            covariance += part.transpose(1, 2) @ part
        return mean, covariance / valid

    def _after_first(self, x: Tensor) -> Tensor:
        """Norm (where it is not folded), GELU, and the precision of the rest."""
        return self._to_dtype(gelu_(x) if self.grouped else self._norm(x, 0))

    def _to_dtype(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)

    def _norm(self, x: Tensor, index: int) -> Tensor:
        weight, bias = self.norms[f"{index} weight"], self.norms[f"{index} bias"]
        return gelu_(F.layer_norm(x, weight.shape, weight, bias, EPSILON))

    def _rest(self, x: Tensor, rows: Sequence[int]) -> Tensor:
        """The layers after the first: x (rows[1] or more, channels) → (rows[-1], channels)."""
        for index in range(1, len(self.layers)):
            x = self.products[index - self.grouped](_windows(x, self.layers[index], rows[index + 1]))
            if not self.grouped:
                x = self._norm(x, index)
        return x


def _windows(x: Tensor, layer: Tuple[int, int, int], count: int) -> Tensor:
    """The windows of a convolution over x (rows, channels), as rows (count, kernel × channels) without copying."""
    _, kernel, stride = layer
    channels = x.shape[1]
    return x.as_strided((count, kernel * channels), (stride * channels, 1))


def _first(dtype: torch.dtype, index: int) -> torch.dtype:
    """The first layer is in float32 always: it sees the waveform, whose quiet parts 8 bits would drown."""
    return torch.float32 if index == 0 else dtype
