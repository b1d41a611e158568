"""HuBERT: waveforms to features, exact under padding, any layer, without fairseq.

After Hsu et al., "HuBERT: Self-Supervised Speech Representation Learning by Masked Prediction of Hidden Units", 2021;
agrees with fairseq's `extract_features(…, output_layer=layer)` and, below the last layer of models that normalise
first, with transformers' `hidden_states[layer]`, to about 1e-5. A waveform's features are its own: neither its company
in a batch nor padding changes them (bit for bit on a CPU in float32).
"""

from __future__ import annotations

from typing import Any, List, Mapping, Optional

import torch
from torch import Tensor, nn

from pipelines.core.errors import UsageError
from pipelines.units.extractor import Extractor
from pipelines.units.models import ModelInfo
from pipelines.units.transformer import EndToEnd, Layer, Layout, Norm, Padded, Position, product

EPSILON = 1e-5


class Hubert(nn.Module):
    """The encoder up to `layer` (1 is the first). Make it with `load`.

    Attributes: `hop` (samples a frame), `width` (of a feature), `layer`, `shortest` (the fewest samples that give a
    frame), `sample_rate`.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        layer: int,
        dtype: torch.dtype = torch.float32,
        padded: Optional[bool] = None,
    ) -> None:
        """`tensors`: those of a model folder, in float32, on the device to compute on; `dtype` to compute in.

        `padded`: a batch is one padded tensor, the way for GPUs (None: wherever it is not a CPU), and not one waveform
        after the other.
        """
        super().__init__()
        self.hop, self.width, self.sample_rate = int(config["hop"]), int(config["width"]), int(config["sample_rate"])
        self.layer, self.normalize = layer, bool(config["normalize"])
        self.register_buffer("_place", tensors["encoder_norm.weight"].new_empty(0))
        self.dtype, self.padded = dtype, self.device.type != "cpu" if padded is None else padded
        self.extractor = Extractor(config, _part(tensors, "extractor."), dtype, self.padded)
        self.shortest = self.extractor.samples(1)
        self.position = Position(config, _part(tensors, "position."), dtype)
        tensors = {name: value.to(dtype) for name, value in tensors.items()}
        self.features_norm = Norm(tensors, "features_norm") if "features_norm.weight" in tensors else None
        self.projection = product(tensors, "projection") if "projection.weight" in tensors else None
        self.norm = None if config["layer_norm_first"] else Norm(tensors, "encoder_norm")
        heads, first = int(config["heads"]), bool(config["layer_norm_first"])
        self.layers = nn.ModuleList(Layer(_part(tensors, f"layers.{i}."), heads, first) for i in range(layer))

    @classmethod
    def load(cls, info: ModelInfo, layer: int, device: Any = "cpu", dtype: torch.dtype = torch.float32) -> Hubert:
        """The encoder of a model folder up to `layer`; what lies above is not read. Raises UsageError."""
        from safetensors import SafetensorError, safe_open

        layers = info.config["layers"]
        if not 1 <= layer <= layers:
            raise UsageError(f"{info.name} has layers 1 to {layers}, and layer {layer} is asked for.")
        tensors = {}
        try:
            with safe_open(str(info.weights), framework="pt", device="cpu") as file:
                for name in file.keys():  # noqa: SIM118 - not a dictionary
                    if _is_needed(name, layer):
                        value = file.get_tensor(name)
                        # Matrices are copied on their way to the device or into their packed form. What is small and
                        # stays as it is must not go on depending on the file.
                        copy = value.dim() != 2
                        tensors[name] = value.to(device=torch.device(device), dtype=torch.float32, copy=copy)
            return cls(info.config, tensors, layer, dtype).eval()
        except (SafetensorError, KeyError, OSError) as error:
            raise UsageError(
                f"{info.weights} does not hold the weights that its description promises ({error}): it was damaged or "
                f"changed. Import the model again with --replace (`./voxarray import-checkpoint --help`)."
            ) from None

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.get_buffer("_place").device

    def frames(self, samples: int) -> int:
        """Frames that a waveform of so many samples has; 0 if it is too short for one."""
        return self.extractor.frames(samples)

    @torch.inference_mode()
    def forward(self, waveforms: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Features (batch, frames of the longest, width).

        `waveforms` (batch, samples), float32 at 16 kHz, each followed by padding; `lengths` (batch,): samples of each,
        None: all of them. Rows beyond a waveform's own frames are unspecified.
        """
        waveforms = waveforms.to(device=self.device, dtype=torch.float32)
        batch, samples = waveforms.shape
        if lengths is None:
            lengths = torch.full((batch,), samples)
        lengths = lengths.cpu()  # small; and the shapes of what follows depend on it
        frames = self.frames(samples)
        if not batch or not frames:
            return waveforms.new_zeros((batch, frames, self.width), dtype=self.dtype)
        if self.padded:
            return self._padded(waveforms, lengths, frames)
        return self._end_to_end(waveforms, lengths.tolist(), frames)

    def _end_to_end(self, waveforms: Tensor, lengths: List[int], frames: int) -> Tensor:
        features = [
            self.extractor.one(self._scaled(row[:length].contiguous()))
            for row, length in zip(waveforms, lengths)
            if length >= self.shortest
        ]
        out = waveforms.new_zeros((len(lengths), frames, self.width), dtype=self.dtype)
        if features:
            counts = [len(each) for each in features]
            x = self._transform(torch.cat(features) if len(features) > 1 else features[0], EndToEnd(counts))
            if len(lengths) == 1:
                return x[None]
            rows = [row for row, length in zip(out, lengths) if length >= self.shortest]
            for row, own in zip(rows, torch.split(x, counts)):
                row[: len(own)] = own
        return out

    def _padded(self, waveforms: Tensor, lengths: Tensor, frames: int) -> Tensor:
        batch, samples = waveforms.shape
        device = waveforms.device
        own = self.extractor.frames_of(lengths).clamp(min=1)
        keep = None
        if int(own.min()) < frames:
            keep = torch.arange(frames, device=device)[None] < own.to(device)[:, None]
        if int(lengths.min()) < samples:
            inside = torch.arange(samples, device=device)[None] < lengths.to(device)[:, None]
            waveforms = waveforms.masked_fill(~inside, 0.0)
            waveforms = self._scaled(waveforms, lengths.to(device)[:, None]).masked_fill_(~inside, 0.0)
        else:
            waveforms = self._scaled(waveforms)
        features = self.extractor.many(waveforms, lengths)
        x = self._transform(features.flatten(0, 1), Padded(batch, frames, keep))
        return x.view(batch, frames, self.width)

    def _scaled(self, waveforms: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Waveforms (…, samples; zero beyond `lengths`) without their mean, of unit variance where the model asks it.

        A group norm would take the mean away too, but only after rounding the sum.
        """
        if not (self.normalize or self.extractor.grouped):
            return waveforms
        count = waveforms.shape[-1] if lengths is None else lengths.clamp(min=1)
        mean = waveforms.sum(-1, keepdim=True, dtype=torch.float64) / count
        if not self.normalize:
            return waveforms - mean.float()
        power = waveforms.double().square_().sum(-1, keepdim=True) / count
        scale = torch.rsqrt((power - mean.square()).clamp_(min=0) + EPSILON)
        return (waveforms - mean.float()) * scale.float()

    def _transform(self, x: Tensor, layout: Layout) -> Tensor:
        """Frames of features (rows, channels) → of the layer (rows, width)."""
        if self.features_norm is not None:
            x = self.features_norm(x)
        if self.projection is not None:
            x = self.projection(x)
        x = self.position(layout.zero(x), layout)
        if self.norm is not None:
            x = self.norm(x)
        for layer in self.layers:
            x = layer(x, layout)
        return x


def _is_needed(name: str, layer: int) -> bool:
    """Whether a tensor of a model folder is needed for this layer."""
    return not name.startswith("layers.") or int(name.split(".")[1]) < layer


def _part(tensors: Mapping[str, Tensor], prefix: str) -> Mapping[str, Tensor]:
    """The tensors whose name begins with `prefix`, without it."""
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
