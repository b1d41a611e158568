"""NeMo's recognisers from a .nemo file: CTC, RNN-T, TDT and their hybrids here; those with a decoder in `nemo_aed`.

Arrays go straight through the model's features, encoder and decoding, which NeMo's own `transcribe` reaches by way of
a manifest in a temporary folder and a new data loader at each call.
"""

from __future__ import annotations

from typing import Any, Sequence

import torch
from nemo.collections.asr import models
from nemo.collections.asr.parts.utils.timestamp_utils import process_timestamp_outputs
from omegaconf import open_dict

from pipelines.asr.backends import device, nemo_model
from pipelines.asr.backends.base import IN_BATCHES, Backend, Settings, Transcript, Word, audible, refuse, within
from pipelines.asr.backends.locate import Model
from pipelines.audio import RATE
from pipelines.audio.resample import Float32
from pipelines.core.errors import UsageError
from pipelines.core.pipeline import Resources

DECODERS = ("rnnt", "ctc")
_GREEDY = {"greedy": "greedy_batch"}
"""The same result, for the whole batch at once."""


def words_of(entries: Sequence[Any], seconds: float, before_s: float = 0.0) -> list[Word]:
    """NeMo's word stamps, of a piece of so many seconds that so much silence was put before."""
    found = [
        Word(entry["start"] - before_s, entry["end"] - before_s, entry["word"])
        for entry in entries
        if entry["start"] >= 0
    ]
    return within(found, seconds)


class Transducer:
    """CTC, RNN-T, TDT, or both in one."""

    longest_s = 60.0
    has_words = True
    concurrency = 1
    together = IN_BATCHES
    encoder_overhead = None

    def __init__(self, model: Any, place: device.Place, decoder: str) -> None:
        """`decoder` is "ctc" or "rnnt", one that the model has."""
        self.on_gpu = place.on_gpu
        self.batch_s = device.batch_s(place, per_80_gb=3600.0, on_cpu=120.0)
        self._device = place.device
        self._ctc = decoder == "ctc"
        self.overhead = device.overhead(place) if self._ctc else 1.0  # a step of an RNN-T takes all pieces at once
        self._hybrid = isinstance(model, models.EncDecHybridRNNTCTCModel)
        self._model = nemo_model.placed(model, place)
        self._step_s = float(model.cfg.preprocessor.window_stride)
        self._timed = False
        self._decode_with(self._timed)

    def transcribe(self, pieces: Sequence[Float32], words: bool = False) -> list[Transcript]:
        """The transcripts of a batch of pieces (samples,) at 16 kHz ±1."""
        if words != self._timed:
            self._decode_with(words)
        return audible(pieces, words, self._recognise)

    def _decode_with(self, times: bool) -> None:
        """Have the model's decoding find times or not, which costs, and decode batches as batches."""
        ctc_of_hybrid = self._hybrid and self._ctc
        cfg = self._model.cfg.aux_ctc.decoding if ctc_of_hybrid else self._model.cfg.decoding
        with open_dict(cfg):
            cfg.strategy = _GREEDY.get(cfg.strategy, cfg.strategy)
            cfg.compute_timestamps = times
        if self._hybrid:
            self._model.change_decoding_strategy(cfg, decoder_type="ctc" if self._ctc else "rnnt", verbose=False)
        else:
            self._model.change_decoding_strategy(cfg, verbose=False)
        self._timed = times

    @torch.inference_mode()
    def _recognise(self, pieces: list[Float32]) -> list[Transcript]:
        signal, lengths = device.padded(pieces, self._device)
        found = self._hypotheses(signal, lengths)
        best = [each[0] if isinstance(each, list) else each for each in found]
        if not self._timed:
            return [Transcript(each.text.strip()) for each in best]
        best = process_timestamp_outputs(best, self._model.encoder.subsampling_factor, self._step_s)
        return [
            Transcript(each.text.strip(), words_of(each.timestamp["word"], len(piece) / RATE))
            for each, piece in zip(best, pieces)
        ]

    def _hypotheses(self, signal: torch.Tensor, lengths: torch.Tensor) -> Sequence[Any]:
        model = self._model
        outputs = model.forward(input_signal=signal, input_signal_length=lengths)
        if not self._ctc:
            found = model.decoding.rnnt_decoder_predictions_tensor(
                outputs[0], outputs[1], return_hypotheses=self._timed
            )
        else:
            scores = model.ctc_decoder(encoder_output=outputs[0]) if self._hybrid else outputs[0]
            decoding = model.ctc_decoding if self._hybrid else model.decoding
            found = decoding.ctc_decoder_predictions_tensor(
                scores, decoder_lengths=outputs[1], return_hypotheses=self._timed
            )
        hypotheses: Sequence[Any] = found
        return hypotheses

    def close(self) -> None:
        """Free the weights."""
        del self._model


def load(found: Model, settings: Settings, resources: Resources) -> Backend:
    """The recogniser of a .nemo file or of its extracted folder. UsageError: it is of a kind that is not run here."""
    place = device.choose(settings.get("precision", "auto"), resources)
    nemo_model.quiet()
    model = _restored(found)
    if isinstance(model, models.EncDecMultiTaskModel):
        from pipelines.asr.backends.nemo_aed import MultiTask

        refuse(settings, "decoder", found.name)
        return MultiTask(model, place, settings.get("language") or "en")
    refuse(settings, "language", found.name)
    return Transducer(model, place, _decoder(model, settings.get("decoder"), found.name))


def _restored(found: Model) -> Any:
    from nemo.core.connectors.save_restore_connector import SaveRestoreConnector

    connector, path = SaveRestoreConnector(), found.path
    if path is not None and path.is_dir():
        connector.model_extracted_dir = str(path)
    return models.ASRModel.restore_from(str(path), map_location="cpu", save_restore_connector=connector).eval()


def _decoder(model: Any, asked: Any, name: str) -> str:
    """`ctc` or `rnnt`: what was asked for, else the better one that the model has."""
    if isinstance(model, models.EncDecHybridRNNTCTCModel):
        has: tuple[str, ...] = DECODERS
    elif isinstance(model, models.EncDecRNNTModel):
        has = ("rnnt",)
    elif isinstance(model, models.EncDecCTCModel):
        has = ("ctc",)
    else:
        has = ()
    if not has or "Prompt" in type(model).__name__:
        raise UsageError(
            f"{name} is NeMo's {type(model).__name__}, which is not run here: there are CTC, RNN-T, TDT, hybrids of "
            "them, and multitask models (Canary)."
        )
    if asked and asked not in has:
        raise UsageError(f"{name} has no decoder {asked!r}, only {' and '.join(has)}.")
    return str(asked or has[0])
