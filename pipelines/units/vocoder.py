"""The unit vocoder: discrete units to a waveform at 16 kHz, exact whether batched, padded or cut into blocks."""

from __future__ import annotations

from typing import Mapping, Optional, Union

import torch
from torch import Tensor, nn

from pipelines.core.errors import ItemError, UsageError
from pipelines.units.hifigan import Generator, Shape, inside
from pipelines.units.models import ModelInfo

_IGNORED = "dur_predictor."
"""Weights that only matter for deduplicated units, whose durations they predict; units here keep their durations."""


class CodeHiFiGan(nn.Module):
    """A loaded vocoder. Results do not depend on padding (1e-5) or on what else is in the batch."""

    def __init__(self, info: ModelInfo, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.name = info.name
        self.shape = Shape.of(info)
        self.hop, self.context, self.vocabulary_size = self.shape.hop, self.shape.context, self.shape.vocabulary
        self.speakers: list[str] = list(info.config.get("speakers") or ())
        self.styles: list[str] = list(info.config.get("styles") or ())
        self.generator = Generator(self.shape)
        self._take(weights)
        self.requires_grad_(requires_grad=False).eval()

    @classmethod
    def load(
        cls, info: ModelInfo, device: Union[str, torch.device] = "cpu", dtype: torch.dtype = torch.float32
    ) -> CodeHiFiGan:
        """The vocoder of a model folder. Whether a GPU rounds to TF32 is torch's setting (`pipelines.units.device`).

        Raises UsageError for one that needs more than this generator does, or whose weights do not fit.
        """
        from safetensors.torch import load_file

        vocoder = cls(info, load_file(info.weights)).to(device=device, dtype=dtype)
        on_cpu = torch.device(device).type == "cpu"
        if on_cpu or dtype != torch.float32:
            vocoder = vocoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return vocoder

    def _take(self, weights: Mapping[str, Tensor]) -> None:
        """Fill in the weights, all of them and no others."""
        own = self.generator.state_dict()
        given = {name: value for name, value in folded(weights).items() if not name.startswith(_IGNORED)}
        wrong = sorted(own.keys() ^ given.keys())
        wrong += sorted(name for name in own.keys() & given.keys() if own[name].numel() != given[name].numel())
        if wrong:
            raise UsageError(
                f"The weights of the vocoder {self.name} do not fit its configuration; among them: "
                f"{', '.join(wrong[:5])}. Import it again with the configuration that it was published with."
            )
        self.generator.load_state_dict({name: given[name].reshape(own[name].shape) for name in own})

    @torch.inference_mode()
    def forward(
        self,
        units: Tensor,
        lengths: Optional[Tensor] = None,
        speaker: Optional[Tensor] = None,
        style: Optional[Tensor] = None,
    ) -> Tensor:
        """Units (batch, frames) int64 → samples (batch, frames · hop) float32 in [-1, 1], zero beyond each length.

        `lengths` (batch,): units of each sequence; None: all are full. `speaker`, `style` (batch,): indices, where the
        vocoder has such; None: the first. Raises ItemError for a unit, speaker or style that does not exist.
        """
        self._verify_inside(units if lengths is None else units[inside(units, lengths)])
        for what, names, chosen in (("speaker", self.speakers, speaker), ("style", self.styles, style)):
            if chosen is not None and names and not 0 <= int(chosen.min()) <= int(chosen.max()) < len(names):
                raise ItemError(f"The {what} {chosen.tolist()[:10]} does not exist: {self.name} has {len(names)}.")
        if lengths is not None and bool((lengths == units.shape[1]).all()):
            lengths = None
        # What lies beyond a length may be anything; it is looked up all the same, and zeroed.
        samples: Tensor = self.generator(units.clamp(0, self.vocabulary_size - 1), lengths, speaker, style)
        return samples

    def _verify_inside(self, units: Tensor) -> None:
        if units.numel() and not 0 <= int(units.min()) <= int(units.max()) < self.vocabulary_size:
            raise ItemError(beyond_vocabulary(self.name, self.vocabulary_size, int(units.max())))


def beyond_vocabulary(vocoder: str, size: int, unit: int) -> str:
    """The paragraph for a unit that a vocoder does not know."""
    return (
        f"Unit {unit} does not exist for the vocoder {vocoder}, which knows {size:,} units (0 to {size - 1}): the "
        "units were made with another quantizer. Use the vocoder that was trained on it, or encode with the vocoder's."
    )


def folded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with weight normalisation multiplied out: weight = g · v / |v|, |v| over all axes but the first."""
    result = dict(weights)
    for name in [name for name in weights if name.endswith(".weight_g")]:
        stem = name[: -len("_g")]
        direction = result.pop(stem + "_v").double()
        norm = direction.flatten(1).norm(dim=1).reshape(-1, *[1] * (direction.dim() - 1))
        result[stem] = (direction * (result.pop(name).double() / norm)).float()
    return result
