"""NeMo's multitask models (Canary): an encoder, and a decoder that is prompted with language and task."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple, Optional, Sequence

import numpy as np
import torch
from nemo.collections.asr.parts.utils.timestamp_utils import (
    get_forced_aligned_timestamps_with_external_model,
    process_aed_timestamp_outputs,
)

from pipelines.asr.backends import device, nemo_model
from pipelines.asr.backends.base import IN_BATCHES, Transcript, Word, audible
from pipelines.asr.backends.nemo import words_of
from pipelines.audio import RATE
from pipelines.audio.resample import Float32
from pipelines.core.errors import UsageError

_AT_LEAST = RATE
"""NeMo puts silence around anything shorter than a second that these models are to hear."""


class Ready(NamedTuple):
    """A piece with the silence that makes it long enough, and the seconds of it that stand before."""

    samples: Float32
    before_s: float
    seconds: float


def ready(piece: Float32) -> Ready:
    """A piece as NeMo's own `transcribe` would hear it."""
    lacking = max(0, _AT_LEAST - len(piece))
    before = lacking // 2
    return Ready(np.pad(piece, (before, lacking - before)) if lacking else piece, before / RATE, len(piece) / RATE)


class MultiTask:
    """A Canary. Words come from the CTC model that newer ones carry for that, else from the decoder's own stamps."""

    longest_s = 40.0
    """As they were trained."""
    concurrency = 1
    together = IN_BATCHES
    overhead = 1.0
    encoder_overhead = None

    def __init__(self, model: Any, place: device.Place, language: str) -> None:
        """`language` is that of the speech and of the text, as the model names it (`en`)."""
        self.on_gpu = place.on_gpu
        self.batch_s = device.batch_s(place, per_80_gb=2400.0, on_cpu=120.0)
        self._device = place.device
        self._aligner = model.timestamps_asr_model
        if self._aligner is not None:
            self._aligner = nemo_model.placed(self._aligner, place)
        self._model = nemo_model.placed(model, place)
        self._stamps = self._aligner is None and "timestamp" in model.prompt.get_slots("user")
        self.has_words = self._aligner is not None or self._stamps
        self._prompts = {times: self._prompt(language, times) for times in {False, self._stamps}}
        self._step_s = float(model.cfg.preprocessor.window_stride)

    def _prompt(self, language: str, times: bool) -> torch.Tensor:
        """The tokens (1, tokens) that the decoder begins with. UsageError: a language that the model does not know."""
        prompt = self._model.prompt
        values = {
            "source_lang": language, "target_lang": language, "task": "asr", "pnc": "yes", "itn": "no",
            "timestamp": "yes" if times else "no", "diarize": "no", "emotion": "<|emo:undefined|>",
            "decodercontext": "",
        }  # fmt: skip
        defaults = next(turn for turn in copy.deepcopy(prompt.get_default_dialog_slots()) if turn["role"] == "user")
        own = {"source_lang", "target_lang", "timestamp"}
        slots = {}
        for slot in prompt.get_slots("user"):
            default = defaults["slots"].get(slot)
            slots[slot] = values.get(slot, "") if slot in own or default is None else default
        try:
            ids: torch.Tensor = prompt.encode_dialog(turns=[{"role": "user", "slots": slots}])["context_ids"]
        except (KeyError, ValueError, AssertionError) as error:
            raise UsageError(f"The model cannot be asked for the language {language!r}: {error}.") from None
        return ids.unsqueeze(0).to(self._device)

    def transcribe(self, pieces: Sequence[Float32], words: bool = False) -> list[Transcript]:
        """The transcripts of a batch of pieces (samples,) at 16 kHz ±1."""
        return audible(pieces, words, lambda some: self._recognise(some, words))

    @torch.inference_mode()
    def _recognise(self, pieces: list[Float32], words: bool) -> list[Transcript]:
        waiting = [ready(piece) for piece in pieces]
        signal, lengths = device.padded([piece.samples for piece in waiting], self._device)
        stamped = words and self._stamps
        best, limits = self._decoded(signal, lengths, stamped)
        flags = [self._shorten(each, limit) for each, limit in zip(best, limits)]
        if stamped:
            best = process_aed_timestamp_outputs(best, self._model.encoder.subsampling_factor, self._step_s)
        elif words and self._aligner is not None:
            self._align(best, waiting)
        return [
            Transcript(each.text.strip(), self._words(each, piece) if words else None, flag)
            for each, piece, flag in zip(best, waiting, flags)
        ]

    def _words(self, hypothesis: Any, piece: Ready) -> Optional[list[Word]]:
        if not self.has_words:
            return None
        stamps = hypothesis.timestamp["word"] if hypothesis.timestamp else []
        return words_of(stamps, piece.seconds, piece.before_s)

    def _decoded(
        self, signal: torch.Tensor, lengths: torch.Tensor, stamped: bool
    ) -> tuple[list[Any], list[Optional[int]]]:
        """The best hypothesis of each row, and how many tokens it may have.

        NeMo allows the batch's longest row so many tokens more than it has frames, and all others as many: alone, a
        row would end earlier.
        """
        model = self._model
        _, frames, states, mask = model.forward(input_signal=signal, input_signal_length=lengths)
        prompt = self._prompts[stamped].repeat(len(signal), 1)
        found = model.decoding.decode_predictions_tensor(
            encoder_hidden_states=states, encoder_input_mask=mask, decoder_input_ids=prompt, return_hypotheses=True
        )
        best = [each[0] if isinstance(each, list) else each for each in found]
        spare = model.cfg.decoding.get(model.cfg.decoding.strategy, {}).get("max_generation_delta", -1)
        if spare < 0:
            return best, [None] * len(best)
        return best, [max(1, count + spare - prompt.shape[1]) for count in frames.tolist()]

    def _shorten(self, hypothesis: Any, limit: Optional[int]) -> Optional[str]:
        """Cut a text that is too long; what to say about it."""
        ids = [int(each) for each in hypothesis.y_sequence]
        if limit is None or len(ids) <= limit:
            return None
        hypothesis.y_sequence = ids[:limit]
        hypothesis.text = self._model.decoding.decode_ids_to_str(ids[:limit])
        return f"the text did not end within {limit} tokens"

    def _align(self, hypotheses: list[Any], waiting: Sequence[Ready]) -> None:
        """Add word times to hypotheses that have a text, by aligning it with the CTC model's output."""
        spoken = [(each, piece) for each, piece in zip(hypotheses, waiting) if each.text.strip()]
        for each in hypotheses:
            each.timestamp = {"word": []}
        if spoken:
            get_forced_aligned_timestamps_with_external_model(
                audio=[torch.from_numpy(piece.samples) for _, piece in spoken],
                external_ctc_model=self._aligner,
                main_model_predictions=[each for each, _ in spoken],
                batch_size=len(spoken),
                viterbi_device=self._device,
                timestamp_type=["word"],
                verbose=False,
            )

    def close(self) -> None:
        """Free the weights."""
        del self._model, self._aligner
