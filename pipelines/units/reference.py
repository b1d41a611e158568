"""The reference backend: what textlesslib computes, with fairseq's and scikit-learn's own code, file by file.

It runs in the environment `sts` (Python 3.9), from the original files alone.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence, Union

import numpy as np
import numpy.typing as npt
import torch

from pipelines.audio import RATE
from pipelines.audio.resample import Float32
from pipelines.core.errors import ItemError, UsageError
from pipelines.core.pipeline import Parameters
from pipelines.units import device, models, originals
from pipelines.units.packed import Units
from pipelines.units.pieces import TEXTLESS, Cut
from pipelines.units.reference_models import ReferenceHubert, generator

log = logging.getLogger(__name__)

_CONTEXT_S = 4.0
"""What pieces share where a run asks for pieces that overlap; as the native encoder's."""
_THREADS = 40
"""What textlesslib gives to a k-means of a scikit-learn that did not keep the number of threads."""


class ReferenceEncoder:
    """HuBERT of fairseq and k-means of scikit-learn. Safe to call from several threads."""

    def __init__(self, model: ReferenceHubert, kmeans: Any, layer: int, cut: Optional[Cut] = None) -> None:
        """`layer`: 1 is the first; `cut`: how long recordings are cut, textlesslib's way (100 s) where None."""
        self.hop, self.vocabulary_size = model.hop, int(kmeans.n_clusters)
        self._model, self._kmeans, self._layer = model, kmeans, layer
        self._cut = cut or Cut(model.shortest, model.hop, 100 * RATE, 0, TEXTLESS)

    @classmethod
    def load(cls, parameters: Parameters) -> ReferenceEncoder:
        """The encoder of a run's parameters. Raises UsageError where an original file is not there."""
        if parameters["dense_model"] is None:
            raise UsageError(
                f"{parameters['units']} are units of log-mel features, which textlesslib does not have: "
                "`--backend textless` is for HuBERT's. Leave the option out."
            )
        on = fit(device.choose("fp32"))
        dense = models.describe(parameters["dense_model"], "hubert")
        codebook = models.describe(parameters["codebook"], "codebook")
        model = ReferenceHubert(originals.find(dense, ["fairseq"]), on)
        mode = parameters.get("chunking", TEXTLESS)
        context = 0 if mode == TEXTLESS else round(_CONTEXT_S * RATE / model.hop)
        longest = round(parameters.get("chunk_s", 100) * RATE)
        cut = Cut(model.shortest, model.hop, longest, context, mode)
        return cls(model, _kmeans(codebook), int(parameters["layer"]), cut)

    def features(self, waveform: Float32) -> Float32:
        """A waveform (samples,) at 16 kHz → features (frames, width) of the layer."""
        whole = self._model.normalised(torch.from_numpy(np.ascontiguousarray(waveform, np.float32))).numpy()
        found = [
            self._model.features(piece.samples, self._layer)[piece.first : piece.last]
            for piece in self._cut.pieces(iter([whole]))
        ]
        return np.concatenate(found) if found else np.empty((0, self._model.width), np.float32)

    def encode(self, waveforms: Sequence[Float32]) -> list[Units]:
        """The units of whole waveforms (samples,) at 16 kHz; shape (frames,) each."""
        return [self.assign(self.features(waveform)) for waveform in waveforms]

    def assign(self, features: Float32) -> Units:
        """Features (frames, width) → their nearest centroids (frames,), as scikit-learn finds them."""
        units = self._kmeans.predict(features) if len(features) else np.empty(0)
        return np.asarray(units).astype(np.uint16)

    @property
    def centroids(self) -> npt.NDArray[np.float64]:
        """The centroids (K, width)."""
        return np.asarray(self._kmeans.cluster_centers_, np.float64)


def _kmeans(codebook: models.ModelInfo) -> Any:
    """scikit-learn's k-means: the published one, or one around the centroids that were fitted here."""
    if codebook.source.format == "fitted":
        return _kmeans_of(codebook)
    import joblib

    path = originals.find(codebook, ["joblib"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of being written by an older scikit-learn
        kmeans = joblib.load(path)
    if not hasattr(kmeans, "_n_threads"):
        kmeans._n_threads = _THREADS  # noqa: SLF001 - as textlesslib does
    kmeans.verbose = False
    return kmeans


def _kmeans_of(codebook: models.ModelInfo) -> Any:
    from safetensors.numpy import load_file
    from sklearn.cluster import MiniBatchKMeans

    centroids = np.ascontiguousarray(load_file(str(codebook.weights))["centroids"], np.float32)
    kmeans = MiniBatchKMeans(n_clusters=len(centroids), n_init=1)
    kmeans.cluster_centers_, kmeans._n_threads = centroids, 1  # noqa: SLF001 - what predict reads
    kmeans.n_features_in_ = centroids.shape[1]
    return kmeans


class ReferenceSynthesiser:
    """textlesslib's vocoder where that is installed, else fairseq's with the table of styles that it lacks."""

    rate = RATE
    on_gpu = False
    """Batches are not worth anything to it."""

    def __init__(
        self,
        path: Union[str, Path],
        config: Mapping[str, Any],
        speaker: Optional[int] = None,
        style: Optional[int] = None,
        on: Union[str, torch.device] = "cpu",
    ) -> None:
        """`config`: of the model folder; `speaker`, `style`: indices, the first where None."""
        self.hop, self.vocabulary_size = int(config["hop"]), int(config["vocabulary_size"])
        self._generator = generator(Path(path), config).to(torch.device(on))
        self._device, self._path = torch.device(on), path
        self._chosen = {"spkr": speaker or 0} if config.get("speakers") else {}
        if config.get("styles"):
            self._chosen["style"] = style or 0

    @classmethod
    def load(cls, parameters: Parameters) -> ReferenceSynthesiser:
        """The voice of a run's parameters (`speaker` and `style` are numbers). UsageError: no original file."""
        info = models.describe(parameters["vocoder"], "hifigan")
        path = originals.find(info, ["codehifigan"])
        on = fit(device.choose("fp32"))
        return cls(path, info.config, parameters.get("speaker"), parameters.get("style"), on)

    @torch.inference_mode()
    def speak(self, units: Sequence[Units]) -> list[Float32]:
        """Units (frames,) each → samples (frames · hop,) each at 16 kHz, full scale ±1."""
        chosen = {key: torch.tensor([[index]], device=self._device) for key, index in self._chosen.items()}
        found: list[Float32] = []
        for each in units:
            if len(each) and int(each.max()) >= self.vocabulary_size:
                raise ItemError(
                    f"Unit {each.max()} does not exist for {self._path}: it knows {self.vocabulary_size:,}."
                )
            code = torch.from_numpy(np.asarray(each, np.int64))[None].to(self._device)
            samples = self._generator(code=code, **chosen).reshape(-1) if code.numel() else torch.empty(0)
            found.append(samples.cpu().numpy())
        return found


def fit(on: torch.device) -> torch.device:
    """The device, if this torch has programs for it: the newest GPUs are younger than torch 1.13."""
    if on.type != "cuda":
        return on
    major, minor = torch.cuda.get_device_capability(on)
    if any(int(name[3:]) // 10 == major and int(name[3:]) % 10 <= minor for name in torch.cuda.get_arch_list()):
        return on
    log.warning(
        "torch %s has no programs for this GPU (compute capability %d.%d), so the reference runs on the CPU.",
        torch.__version__, major, minor,
    )  # fmt: skip
    return torch.device("cpu")
