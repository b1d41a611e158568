"""Whisper, as transformers runs it: every piece is heard as 30 s, so that a batch changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional, Sequence

import torch
from transformers import StoppingCriteriaList, WhisperFeatureExtractor, WhisperTokenizer

from pipelines.asr.backends import device
from pipelines.asr.backends.base import ONE_BY_ONE, Transcript, Word, audible, within
from pipelines.asr.backends.limits import RowLimits
from pipelines.audio import RATE
from pipelines.audio.resample import Float32
from pipelines.core.errors import UsageError

_TOKENS_PER_S, _SPARE_TOKENS = 12, 16
"""Of speech, at the very most: what is longer is a loop."""
_PROMPT_TOKENS = 8
"""More than Whisper's own beginning takes of the decoder's length."""


class Whisper:
    """A Whisper on one device."""

    longest_s = 30.0
    concurrency = 1
    together = ONE_BY_ONE
    overhead = 1.0
    encoder_overhead = None

    def __init__(self, model: Any, folder: Path, place: device.Place, language: Optional[str]) -> None:
        """`language`: as Whisper names it (`en`, `english`); None: it is found out for each piece."""
        self.on_gpu = place.on_gpu
        self.batch_s = device.batch_s(place, per_80_gb=1500.0, on_cpu=120.0)
        self._model, self._place = model, place
        self._extractor = WhisperFeatureExtractor.from_pretrained(str(folder), local_files_only=True)
        self._tokenizer = WhisperTokenizer.from_pretrained(str(folder), local_files_only=True)
        self._ends = int(model.generation_config.eos_token_id)
        self._longest = int(model.config.max_target_positions) - _PROMPT_TOKENS
        self._step_s = self._extractor.chunk_length / model.config.max_source_positions
        self.has_words = bool(getattr(model.generation_config, "alignment_heads", None))
        self._options: dict[str, Any] = {"do_sample": False, "num_beams": 1, "force_unique_generate_call": True}
        if getattr(model.generation_config, "is_multilingual", False):
            self._options.update(task="transcribe", language=_known(language, model.generation_config))

    def transcribe(self, pieces: Sequence[Float32], words: bool = False) -> list[Transcript]:
        """The transcripts of a batch of pieces (samples,) at 16 kHz ±1."""
        if words and self.has_words:
            # transformers finds times by normalising over all tokens of the batch's longest text: one by one, then
            return [audible([piece], words, self._with_words)[0] for piece in pieces]
        return audible(pieces, words, self._texts)

    def _texts(self, pieces: list[Float32]) -> list[Transcript]:
        rows, _ = self._generated(pieces, {})
        return [self._transcript(row) for row in rows]

    def _with_words(self, pieces: list[Float32]) -> list[Transcript]:
        rows, stamps = self._generated(pieces, {"return_token_timestamps": True, "return_dict_in_generate": True})
        return [
            self._transcript(row)._replace(words=self._words(row, stamp, len(piece) / RATE))
            for row, stamp, piece in zip(rows, stamps, pieces)
        ]

    @torch.inference_mode()
    def _generated(self, pieces: list[Float32], more: dict[str, Any]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The tokens of each piece's text, none beyond its limit, and their seconds where `more` asks for them."""
        limits = [min(self._longest, int(len(piece) / RATE * _TOKENS_PER_S) + _SPARE_TOKENS) for piece in pieces]
        device_ = self._place.device
        heard = self._extractor(
            pieces, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True, device=str(device_)
        )
        stop = RowLimits(limits, device_)
        made = self._model.generate(
            heard.input_features.to(device_, self._place.dtype),
            attention_mask=heard.attention_mask.to(device_),
            max_new_tokens=max(limits),
            stopping_criteria=StoppingCriteriaList([stop]),
            **self._options,
            **more,
        )
        begun = stop.begun or 0

        def own(rows: Any) -> list[torch.Tensor]:
            return [row[begun : begun + limit].cpu() for row, limit in zip(rows, limits)]

        return (own(made["sequences"]), own(made["token_timestamps"])) if more else (own(made), [])

    def _transcript(self, row: torch.Tensor) -> Transcript:
        ids = row.tolist()
        whole = self._ends in ids
        text = self._tokenizer.decode(ids[: ids.index(self._ends)] if whole else ids, skip_special_tokens=True).strip()
        return Transcript(text, flagged=None if whole else f"the text did not end within {len(ids)} tokens")

    def _words(self, row: torch.Tensor, stamps: torch.Tensor, seconds: float) -> list[Word]:
        """Tokens grouped into words, as transformers' own pipeline does."""
        output = {"tokens": row[None].numpy(), "token_timestamps": stamps[None].float().numpy()}
        _, found = self._tokenizer._decode_asr(  # noqa: SLF001 - what the pipeline calls; there is no public way
            [output], return_timestamps="word", return_language=None, time_precision=self._step_s
        )
        spans = [(each["timestamp"], each["text"].strip()) for each in found["chunks"]]
        return within(
            [Word(start, end if end is not None else seconds, text) for (start, end), text in spans if text], seconds
        )

    def close(self) -> None:
        """Free the weights."""
        del self._model


def _known(language: Optional[str], generation: Any) -> Optional[str]:
    """The language, if the model knows it. UsageError otherwise."""
    if language is None:
        return None
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    code = TO_LANGUAGE_CODE.get(language.lower(), language.lower())
    if f"<|{code}|>" not in generation.lang_to_id:
        codes = sorted(token.strip("<|>") for token in generation.lang_to_id)
        raise UsageError(f"Whisper does not know the language {language!r}. It knows {', '.join(codes)}.")
    return language.lower()
