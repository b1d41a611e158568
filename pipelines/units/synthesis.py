"""Units to speech, whatever the voice: a unit vocoder, or Griffin-Lim where units are of log-mel bands."""

from __future__ import annotations

from typing import NamedTuple, Optional, Protocol, Sequence, Union

import numpy as np
import numpy.typing as npt
import torch

from pipelines.audio import RATE
from pipelines.audio.resample import Float32
from pipelines.core.errors import ItemError, UsageError
from pipelines.core.pipeline import Parameters
from pipelines.units import device, models
from pipelines.units.codebook import Codebook
from pipelines.units.griffin_lim import Block, GriffinLim, blocks
from pipelines.units.vocoder import CodeHiFiGan, beyond_vocabulary
from pipelines.units.voices import number_of, verify_fit

Units = npt.NDArray[np.uint16]

GRIFFIN_LIM = "griffin-lim"
BLOCK = 500
"""Units of a sequence that are spoken at a time (10 s): memory does not grow with its length."""
_BATCH_ON_GPU = 16_384
"""Units in a batch on a GPU, about 3 GB; on a CPU each block is faster alone."""


class Synthesiser(Protocol):
    """A voice. Each result depends on its own units alone; safe to call from several threads on a CPU."""

    rate: int
    """Samples per second."""
    hop: int
    """Samples that a unit becomes."""
    vocabulary_size: int
    on_gpu: bool

    def speak(self, units: Sequence[Units]) -> list[Float32]:
        """Sequences (frames,) → samples (frames · hop,) in [-1, 1]. ItemError: a unit that does not exist."""
        ...


class _Piece(NamedTuple):
    """A block of a sequence: whose it is, and its units with their context."""

    owner: int
    block: Block
    units: Units


class VocoderVoice:
    """A unit vocoder with one speaker and style. Long sequences go in blocks that see all that can change them."""

    rate = RATE

    def __init__(self, vocoder: CodeHiFiGan, speaker: Optional[int] = None, style: Optional[int] = None) -> None:
        self.hop, self.vocabulary_size, self.name = vocoder.hop, vocoder.vocabulary_size, vocoder.name
        self._vocoder, self._speaker, self._style = vocoder, speaker, style
        self._device = next(vocoder.parameters()).device
        self.on_gpu = self._device.type == "cuda"

    def speak(self, units: Sequence[Units]) -> list[Float32]:
        """The sequences' sound."""
        for each in units:
            _verify(each, self.vocabulary_size, self.name)
        found = [np.zeros(len(each) * self.hop, np.float32) for each in units]
        pieces = [
            _Piece(owner, block, each[block.start : block.stop])
            for owner, each in enumerate(units)
            for block in blocks(len(each), BLOCK, self._vocoder.context)
        ]
        pieces.sort(key=lambda piece: len(piece.units))
        while pieces:
            count = max(1, (_BATCH_ON_GPU if self.on_gpu else 0) // len(pieces[-1].units))
            batch, pieces = pieces[-count:], pieces[:-count]
            for piece, samples in zip(batch, self._sound([piece.units for piece in batch])):
                start, first, last = piece.block.start, piece.block.first, piece.block.last
                counted = samples[(first - start) * self.hop : (last - start) * self.hop]
                found[piece.owner][first * self.hop : last * self.hop] = counted
        return found

    def _sound(self, units: list[Units]) -> Float32:
        """Sequences → (batch, longest · hop), padded."""
        lengths = [len(each) for each in units]
        padded = np.zeros((len(units), max(lengths)), np.int64)
        for row, each in zip(padded, units):
            row[: len(each)] = each
        samples = self._vocoder(
            torch.from_numpy(padded).to(self._device),
            torch.tensor(lengths, device=self._device),
            self._chosen(self._speaker, len(units)),
            self._chosen(self._style, len(units)),
        )
        sound: Float32 = samples.cpu().numpy()
        return sound

    def _chosen(self, number: Optional[int], count: int) -> Optional[torch.Tensor]:
        return None if number is None else torch.full((count,), number, device=self._device)


class GriffinLimVoice:
    """Log-mel units through their codebook's centroids."""

    rate, hop = RATE, GriffinLim.hop

    def __init__(self, codebook: Codebook, name: str) -> None:
        self._inversion = GriffinLim(codebook.centroids)
        self.vocabulary_size, self.name = codebook.size, name
        self.on_gpu = codebook.centroids.is_cuda

    def speak(self, units: Sequence[Units]) -> list[Float32]:
        """The sequences' sound, one after the other."""
        for each in units:
            _verify(each, self.vocabulary_size, self.name)
        return [self._sound(each) for each in units]

    def _sound(self, units: Units) -> Float32:
        sound = np.empty(len(units) * self.hop, np.float32)
        end = 0
        rows = torch.from_numpy(units.astype(np.int64)).to(self._inversion.device)
        for piece in self._inversion.waveform(rows, BLOCK):
            sound[end : end + len(piece)] = piece.cpu().numpy()
            end += len(piece)
        return sound


def _verify(units: Units, size: int, name: str) -> None:
    if units.ndim != 1 or units.dtype.kind not in "ui":
        raise ItemError(
            f"Units are one row of whole numbers; these have the shape {units.shape} and type {units.dtype}."
        )
    if len(units) and not 0 <= int(units.min()) <= int(units.max()) < size:
        raise ItemError(beyond_vocabulary(name, size, int(units.max())))


def load(parameters: Parameters) -> Synthesiser:
    """The voice of a run's parameters, on the device that is there. Raises UsageError, EnvironmentNotFit."""
    if parameters.get("backend") == "textless" and parameters["vocoder"] != GRIFFIN_LIM:
        from pipelines.units.reference import ReferenceSynthesiser

        return ReferenceSynthesiser.load(parameters)
    return load_synthesiser(parameters, device.choose(parameters.get("precision", "fp32")))


def load_synthesiser(parameters: Parameters, on: Union[str, torch.device] = "cpu") -> Synthesiser:
    """A voice on a device. Raises UsageError where it does not fit the units.

    Parameters: `vocoder` (a model's name or folder, or "griffin-lim"), `speaker` and `style` (name, number or None:
    the first), `codebook` (name or folder; with Griffin-Lim), and where known `vocabulary_size` and `units` (of the
    quantizer), `vocoder_digest` and `codebook_digest` (of the models that the run began with), `precision`.
    """
    if parameters["vocoder"] == GRIFFIN_LIM:
        return _inversion(parameters, on)
    info = models.describe(str(parameters["vocoder"]), "hifigan")
    _refuse_other(info, parameters.get("vocoder_digest"))
    verify_fit(info, parameters)
    vocoder = CodeHiFiGan.load(info, on, torch.bfloat16 if parameters.get("precision") == "bf16" else torch.float32)
    speaker = number_of("speaker", parameters.get("speaker"), vocoder.speakers, info.name)
    return VocoderVoice(vocoder, speaker, number_of("style", parameters.get("style"), vocoder.styles, info.name))


def _inversion(parameters: Parameters, on: Union[str, torch.device]) -> GriffinLimVoice:
    info = models.describe(str(parameters.get("codebook") or parameters["units"]), "codebook")
    if info.config["features"]["kind"] != "logmel":
        raise UsageError(
            f"Griffin-Lim turns log-mel bands into speech, and {info.name} is a codebook of HuBERT's features, which "
            "it cannot undo. Name a unit HiFi-GAN that was trained on these units with --vocoder."
        )
    _refuse_other(info, parameters.get("codebook_digest"))
    return GriffinLimVoice(Codebook.load(info, on), info.name)


def _refuse_other(info: models.ModelInfo, digest: Optional[str]) -> None:
    if digest is not None and info.digest != digest:
        raise UsageError(
            f"The model {info.name} in {info.folder} is not the one that this run began with: it was fitted or "
            "imported anew since. Give the command again (with the model as it is now, that is another run), or put "
            "the earlier model back."
        )
