"""HuBERT's convolutions over the waveform.

The group norm after the first convolution is affine in the window once its statistics are known, and these follow
from the mean and covariance of the windows, a matrix of 10 × 10 (taken in float64): so it is folded into that
convolution's weights, waveform by waveform, over its own samples alone. What remains is local in time.

On a CPU it goes in blocks that stay in the cache, by oneDNN's convolutions (as fast as its products here, and three
times closer to the exact result). On a GPU a convolution of kernel k and stride s is one product of windows (rows of k
frames side by side, s frames apart) with the weights: nothing is transposed, and all waveforms of a batch go at once.
"""

from __future__ import annotations

from typing import Any, List, Mapping, Optional, Sequence, Tuple

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
    """The feature extractor. `tensors`: `I.weight` (out, in, kernel), `I.bias`, `I.norm.weight`, `I.norm.bias`.

    `by_products`: in the way for GPUs.
    """

    def __init__(
        self, config: Mapping[str, Any], tensors: Mapping[str, Tensor], dtype: torch.dtype, by_products: bool
    ) -> None:
        super().__init__()
        self.layers: List[Tuple[int, int, int]] = [tuple(each) for each in config["conv_layers"]]
        self.grouped = config["extractor_mode"] == "group_norm"
        self.dtype, self.by_products = dtype, by_products
        self.hop = 1
        for _, _, stride in self.layers:
            self.hop *= stride
        self.products = nn.ModuleList()
        self.register_buffer("first", tensors["0.weight"].flatten(1).double())
        for index in range(len(self.layers)):
            # The first layer is in float32 always: it sees the waveform, whose quiet parts 8 bits would drown.
            kept = torch.float32 if index == 0 else dtype
            for name in ("weight", "bias", "norm.weight", "norm.bias"):
                value = tensors.get(f"{index}.{name}")
                self.register_buffer(f"{name.replace('.', '_')}_{index}", None if value is None else value.to(kept))
            if self.by_products:
                weight, bias = self._convolution(index)
                fused = self.grouped and index > 0
                self.products.append(Product(weight.permute(0, 2, 1).flatten(1), bias, gelu=fused))

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

    def _convolution(self, index: int) -> Tuple[Tensor, Optional[Tensor]]:
        """Weight and bias of a layer. A bias before the group norm vanishes in it."""
        bias = None if self.grouped and index == 0 else self.bias(f"bias_{index}")
        return self.get_buffer(f"weight_{index}"), bias

    def bias(self, name: str) -> Optional[Tensor]:
        """A buffer that need not be there."""
        found: Optional[Tensor] = getattr(self, name)
        return found

    # -- one waveform

    def one(self, waveform: Tensor) -> Tensor:
        """Features (frames, channels) of a whole waveform (samples,), float32; it is at least one frame long."""
        frames = self.frames(len(waveform))
        weight, bias = self._first_layer(waveform)
        longest = max(1, (GPU_BLOCK if self.by_products else CPU_BLOCK) // self.hop)
        blocks = []
        for start in range(0, frames, longest):
            rows = self._rows(min(longest, frames - start))
            piece = waveform[start * self.hop : start * self.hop + rows[0]]
            windows = _windows(piece[:, None], self.layers[0], rows[1])
            if self.by_products:
                blocks.append(self._rest_by_products(F.linear(windows, weight, bias), rows))
            else:
                first = weight @ windows.t() if bias is None else torch.addmm(bias[:, None], weight, windows.t())
                blocks.append(self._rest_by_convolutions(first[None]))
        return torch.cat(blocks)

    def _first_layer(self, waveform: Tensor) -> Tuple[Tensor, Optional[Tensor]]:
        """The first layer's weight (channels, kernel) and bias, with the group norm of this waveform."""
        if self.grouped:
            weights, biases = self._fold(waveform[None], None)
            return weights[0], biases[0]
        weight, bias = self._convolution(0)
        return weight[:, 0], bias

    def _rest_by_convolutions(self, x: Tensor) -> Tensor:
        """From the first convolution's output (1, channels, rows) to the features (frames, channels)."""
        x = gelu_(x).to(self.dtype) if self.grouped else self._norm(x.transpose(1, 2), 0).transpose(1, 2)
        for index in range(1, len(self.layers)):
            x = F.conv1d(x.contiguous(), *self._convolution(index), stride=self.layers[index][2])
            x = gelu_(x) if self.grouped else self._norm(x.transpose(1, 2), index).transpose(1, 2)
        return x[0].t()

    def _norm(self, x: Tensor, index: int) -> Tensor:
        """Layer norm over the channels (last), and GELU."""
        weight, bias = self.get_buffer(f"norm_weight_{index}"), self.get_buffer(f"norm_bias_{index}")
        return gelu_(F.layer_norm(x.contiguous(), weight.shape, weight, bias, EPSILON)).to(self.dtype)

    # -- the group norm

    def _fold(self, waveforms: Tensor, lengths: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
        """The first convolution with its group norm: weights (batch, channels, kernel), biases (batch, channels)."""
        mean, covariance = self._moments(waveforms, lengths)
        first = self.get_buffer("first")
        variance = ((first @ covariance) * first).sum(2).clamp_(min=0)
        weight = first * (torch.rsqrt(variance + EPSILON) * self.get_buffer("norm_weight_0"))[:, :, None]
        bias = self.get_buffer("norm_bias_0") - (weight @ mean.transpose(1, 2))[:, :, 0]
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

    # -- many waveforms, on a GPU

    def many(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Features (batch, frames, channels) of waveforms (batch, samples) of these lengths.

        They are laid end to end, each filled up to whole frames, so that a layer is one product for all of them.
        The frames at a waveform's end that look into the next one are beyond its own, and are cut off.
        """
        batch, samples = waveforms.shape
        frames, pitch = self.frames(samples), -(-samples // self.hop) * self.hop
        at_once = GPU_BLOCK // pitch
        if at_once > 1:
            starts = range(0, batch, at_once)
            parts = [self._at_once(waveforms[s : s + at_once], lengths[s : s + at_once], pitch) for s in starts]
            return torch.cat(parts)[:, :frames]
        out = waveforms.new_zeros((batch, frames, self.layers[-1][0]), dtype=self.dtype)
        for index, length in enumerate(lengths.tolist()):
            if length >= self.samples(1):
                found = self.one(waveforms[index, :length])
                out[index, : len(found)] = found
        return out

    def _at_once(self, waveforms: Tensor, lengths: Tensor, pitch: int) -> Tensor:
        batch, samples = waveforms.shape
        channels, kernel, stride = self.layers[0]
        frames, each = pitch // self.hop, pitch // stride
        rows = self._rows(batch * frames)
        flat = waveforms.new_zeros(rows[0] + pitch)
        flat[: batch * pitch].view(batch, pitch)[:, :samples] = waveforms
        windows = flat.as_strided((batch, each, kernel), (pitch, stride, 1))
        out = flat.new_zeros((max(rows[1], batch * each), channels))
        if self.grouped:
            weight, bias = self._fold(waveforms, lengths)
            target = out[: batch * each].view(batch, each, channels)
            torch.baddbmm(bias[:, None], windows, weight.transpose(1, 2), out=target)
        else:
            out[: batch * each] = self.products[0](windows.reshape(batch * each, kernel))
        return self._rest_by_products(out, rows).view(batch, frames, -1)

    def _rest_by_products(self, x: Tensor, rows: Sequence[int]) -> Tensor:
        """From the first convolution's output (rows[1] or more, channels) to the features (rows[-1], channels)."""
        x = gelu_(x).to(self.dtype) if self.grouped else self._norm(x, 0)
        for index in range(1, len(self.layers)):
            x = self.products[index](_windows(x, self.layers[index], rows[index + 1]))
            if not self.grouped:
                x = self._norm(x, index)
        return x


def _windows(x: Tensor, layer: Tuple[int, int, int], count: int) -> Tensor:
    """The windows of a convolution over x (rows, channels), as rows (count, kernel × channels) without copying."""
    _, kernel, stride = layer
    channels = x.shape[1]
    return x.as_strided((count, kernel * channels), (stride * channels, 1))
