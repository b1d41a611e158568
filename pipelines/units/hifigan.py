"""HiFi-GAN's generator on discrete units: the network of `pipelines.units.vocoder`.

The architecture is that of V1 (Kong et al. 2020, arXiv:2010.05646) on embeddings of units, speaker and style, as in
speech resynthesis from discrete units (Polyak et al. 2021, arXiv:2104.00355), fairseq's and textlesslib's
`CodeGenerator`. Two things differ: everything beyond a sequence's end is zeroed before every convolution, so that a
padded batch gives what each sequence gives alone; and convolutions are two-dimensional of height 1, because processors
are fastest on them with channels last in memory.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Optional

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from pipelines.core.errors import UsageError
from pipelines.units.models import ModelInfo

_SLOPE, _LAST_SLOPE = 0.1, 0.01
"""Of the leaky rectifiers: those inside, and the one before the last convolution (torch's default, as published)."""
_ENDS = 7
"""Kernel of the first and last convolution."""


class Shape(NamedTuple):
    """A generator's architecture: what its configuration says."""

    vocabulary: int
    speakers: int
    styles: int
    """0: without; the same for speakers."""
    width: int
    """Of an embedding."""
    channels: int
    """After the first convolution; each upsampling halves them."""
    rates: tuple[int, ...]
    """Upsampling factors; their product is the hop."""
    up_kernels: tuple[int, ...]
    kernels: tuple[int, ...]
    dilations: tuple[tuple[int, ...], ...]
    """Of the residual blocks that follow each upsampling: kernel sizes, and dilations of each."""

    @classmethod
    def of(cls, info: ModelInfo) -> Shape:
        """The shape that a vocoder's description gives. Raises UsageError for what this generator does not do."""
        config = info.config
        verify(info.name, config)
        return cls(
            int(config["vocabulary_size"]),
            len(config.get("speakers") or ()),
            len(config.get("styles") or ()),
            int(config["embedding_dim"]),
            int(config["upsample_initial_channel"]),
            tuple(config["upsample_rates"]),
            tuple(config["upsample_kernel_sizes"]),
            tuple(config["resblock_kernel_sizes"]),
            tuple(tuple(dilations) for dilations in config["resblock_dilation_sizes"]),
        )

    @property
    def hop(self) -> int:
        """Samples that a unit becomes."""
        hop = 1
        for rate in self.rates:
            hop *= rate
        return hop

    @property
    def context(self) -> int:
        """Units to each side that can change a unit's samples: the reach of all convolutions, from last to first."""
        first, last = -(_ENDS // 2), self.hop - 1 + _ENDS // 2
        for rate, kernel in zip(reversed(self.rates), reversed(self.up_kernels)):
            reach = max(
                sum((size - 1) // 2 * (dilation + 1) for dilation in dilations)
                for size, dilations in zip(self.kernels, self.dilations)
            )
            pad = (kernel - rate) // 2
            # Output o of a transposed convolution takes the inputs i with 0 <= o + pad - i * rate < kernel.
            first = -((kernel - 1 - pad - (first - reach)) // rate)
            last = (last + reach + pad) // rate
        return max(-(first - _ENDS // 2), last + _ENDS // 2)


def verify(name: str, config: Mapping[str, Any]) -> None:
    """Raise UsageError, with the reason, for a configuration that asks for more than units, speaker and style."""
    reasons = {
        "it takes the pitch (f0) as another input, which is not kept with units": config.get("f0"),
        "it takes speaker vectors of another model (embedder_params)": config.get("embedder_params"),
        "its residual blocks are of HiFi-GAN's second kind": str(config.get("resblock", "1")) == "2",
        "its sampling rate is not 16 kHz": config.get("sample_rate", config.get("sampling_rate", 16000)) != 16000,
        "an upsampling kernel does not fit its rate": any(
            kernel < rate or (kernel - rate) % 2
            for rate, kernel in zip(config["upsample_rates"], config["upsample_kernel_sizes"])
        ),
        "a residual kernel is of even size": any(size % 2 == 0 for size in config["resblock_kernel_sizes"]),
    }
    for reason, applies in reasons.items():
        if applies:
            raise UsageError(
                f"The vocoder {name} cannot be used here: {reason}. Vocoders that take units, and if need be a "
                "speaker and a style, can: those that `./voxarray import-checkpoint --help` lists."
            )


class _Residual(nn.Module):
    """One residual block: pairs of convolutions, the first of each pair dilated."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(_convolution(channels, channels, kernel, each) for each in dilations)
        self.convs2 = nn.ModuleList(_convolution(channels, channels, kernel) for _ in dilations)

    def forward(self, x: Tensor, rectified: Tensor, mask: Optional[Tensor]) -> Tensor:
        """`rectified` is x through rectifier and mask, which all blocks of a stage share; neither is changed."""
        for dilated, plain in zip(self.convs1, self.convs2):
            inner = _masked(F.leaky_relu(dilated(rectified), _SLOPE, inplace=True), mask)
            x = plain(inner).add_(x)
            if plain is not self.convs2[-1]:
                rectified = _masked(F.leaky_relu(x, _SLOPE), mask)
        return x


class Generator(nn.Module):
    """The network. Parameters are named as in published checkpoints."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.dict = nn.Embedding(shape.vocabulary, shape.width)
        self.spkr = nn.Embedding(shape.speakers, shape.width) if shape.speakers else None
        self.style = nn.Embedding(shape.styles, shape.width) if shape.styles else None
        inputs = 1 + bool(shape.speakers) + bool(shape.styles)
        self.conv_pre = _convolution(shape.width * inputs, shape.channels, _ENDS)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        channels = shape.channels
        for rate, kernel in zip(shape.rates, shape.up_kernels):
            halved = channels // 2
            pad = (0, (kernel - rate) // 2)
            self.ups.append(nn.ConvTranspose2d(channels, halved, (1, kernel), (1, rate), pad))
            channels = halved
            for size, dilations in zip(shape.kernels, shape.dilations):
                self.resblocks.append(_Residual(channels, size, dilations))
        self.conv_post = _convolution(channels, 1, _ENDS)

    def forward(
        self, units: Tensor, lengths: Optional[Tensor], speaker: Optional[Tensor], style: Optional[Tensor]
    ) -> Tensor:
        """Units (batch, frames) → samples (batch, frames · hop), zero beyond each length."""
        x = self._embedded(units, speaker, style).transpose(1, 2).unsqueeze(2)  # (batch, channels, 1, frames)
        mask = _mask(x, lengths)
        x = self.conv_pre(_masked(x, mask))
        blocks = len(self.shape.kernels)
        for stage, up in enumerate(self.ups):
            x = up(_masked(F.leaky_relu(x, _SLOPE, inplace=True), mask))
            mask = None if mask is None else mask.repeat_interleave(self.shape.rates[stage], dim=3)
            rectified = _masked(F.leaky_relu(x, _SLOPE), mask)
            total: Optional[Tensor] = None
            for block in self.resblocks[stage * blocks : (stage + 1) * blocks]:
                out = block(x, rectified, mask)
                total = out if total is None else total.add_(out)
            x = total.div_(blocks) if total is not None else x
        x = self.conv_post(_masked(F.leaky_relu(x, _LAST_SLOPE, inplace=True), mask))
        return _masked(torch.tanh(x.float()), mask)[:, 0, 0]

    def _embedded(self, units: Tensor, speaker: Optional[Tensor], style: Optional[Tensor]) -> Tensor:
        parts = [self.dict(units)]
        for table, chosen in ((self.spkr, speaker), (self.style, style)):
            if table is not None:
                first = torch.zeros(len(units), dtype=torch.int64, device=units.device)
                vector = table(first if chosen is None else chosen)
                parts.append(vector[:, None].expand(-1, units.shape[1], -1))
        return torch.cat(parts, dim=2)


def _convolution(into: int, out: int, kernel: int, dilation: int = 1) -> nn.Conv2d:
    """A convolution in time that keeps the length."""
    return nn.Conv2d(into, out, (1, kernel), padding=(0, (kernel - 1) // 2 * dilation), dilation=(1, dilation))


def inside(units: Tensor, lengths: Tensor) -> Tensor:
    """Which of (batch, frames) lie before each sequence's end."""
    return torch.arange(units.shape[1], device=units.device) < lengths[:, None].to(units.device)


def _mask(x: Tensor, lengths: Optional[Tensor]) -> Optional[Tensor]:
    """1 inside, 0 beyond each sequence's end, shape (batch, 1, 1, frames); None where all are full."""
    return None if lengths is None else inside(x[:, 0, 0], lengths)[:, None, None].to(x.dtype)


def _masked(x: Tensor, mask: Optional[Tensor]) -> Tensor:
    """Zero x beyond the ends, in place."""
    return x if mask is None else x.mul_(mask)
