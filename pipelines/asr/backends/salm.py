"""NeMo's SALM (Canary-Qwen): a FastConformer encoder whose frames are read by a language model as part of a prompt.

As `SALM.generate` computes it, with what that does anew at every call done once: LoRA is merged into the weights, the
prompt is tokenised and embedded, and the embeddings stay in the language model. Plain language models generate in a
loop of our own (`greedy`), others by transformers' `generate()`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

import torch
from nemo.collections.common.prompts import PromptFormatter
from nemo.collections.speechlm2.models import SALM
from nemo.collections.speechlm2.parts.encoder_chunking import encode_audio_with_optional_chunking
from peft import PeftModel
from transformers import GenerationConfig, StoppingCriteriaList

from pipelines.asr.backends import device, greedy, nemo_model
from pipelines.asr.backends.base import IN_BATCHES, Settings, Transcript, audible
from pipelines.asr.backends.limits import RowLimits
from pipelines.asr.backends.locate import Model
from pipelines.asr.batching import grouped
from pipelines.audio import RATE
from pipelines.audio.resample import Float32
from pipelines.core.errors import UsageError
from pipelines.core.pipeline import Resources

PROMPT = "Transcribe the following:"
_SPARE_TOKENS = 16
"""A piece's text has at most this many tokens more than the encoder has frames (12.5 a second for Canary-Qwen, of
which speech needs 3 to 6): what is longer is a loop."""


class Prompt(NamedTuple):
    """What stands before and after the audio, embedded: (tokens, width) each."""

    before: torch.Tensor
    after: torch.Tensor


class Salm:
    """A SALM on one device."""

    longest_s = 40.0
    """As it was trained."""
    has_words = False
    concurrency = 1
    together = IN_BATCHES
    overhead = 4.0
    """A token costs hardly more for many pieces than for one."""

    def __init__(self, model: SALM, place: device.Place, prompt: str) -> None:
        """`model` is taken apart: it is not to be used afterwards."""
        self.on_gpu = place.on_gpu
        self.encoder_overhead = device.overhead(place)
        self.batch_s = device.batch_s(place, per_80_gb=1500.0, on_cpu=120.0)
        self._device = place.device
        self._chunk_s = model.cfg.get("encoder_chunk_size_seconds", None)
        self._tokenizer = model.tokenizer
        self._ends = model.text_eos_id
        self._generation = {
            "do_sample": False, "num_beams": 1, "use_cache": True,
            "bos_token_id": model.text_bos_id, "eos_token_id": model.text_eos_id, "pad_token_id": model.text_pad_id,
        }  # fmt: skip
        ids = _prompt_ids(model, prompt)
        self._llm = _merged(model).to(place.device, place.dtype)
        self._perception = nemo_model.placed(model.perception, place)
        self._prompt = self._embedded(ids, model.audio_locator_tag_id)

    def transcribe(self, pieces: Sequence[Float32], words: bool = False) -> list[Transcript]:
        """The transcripts of a batch of pieces (samples,) at 16 kHz ±1; there are no word times."""
        return [each._replace(words=None) for each in audible(pieces, words, self._recognise)]

    @torch.inference_mode()
    def _recognise(self, pieces: list[Float32]) -> list[Transcript]:
        heard = self._heard(pieces)
        embedded, mask = self._with_prompt(heard)
        limits = [max(1, len(frames) + _SPARE_TOKENS) for frames in heard]
        said = greedy.generate if greedy.suits(self._llm) else self._generated
        rows = said(self._llm, embedded, mask, limits, self._ends)
        return [self._transcript(ids, limit) for ids, limit in zip(rows, limits)]

    def _heard(self, pieces: list[Float32]) -> list[torch.Tensor]:
        """The encoder's frames (frames, width) of each piece, alike lengths padded together."""
        found: dict[int, torch.Tensor] = {}
        order = sorted(range(len(pieces)), key=lambda place: -len(pieces[place]))
        lengths = [len(pieces[place]) for place in order]
        for group in grouped(order, lengths, self.encoder_overhead):
            signal, samples = device.padded([pieces[place] for place in group], self._device)
            frames = encode_audio_with_optional_chunking(
                self._perception, signal, samples, chunk_size_seconds=self._chunk_s, sampling_rate=RATE
            )
            found.update(zip(group, frames))
        return [found[place] for place in range(len(pieces))]

    def _generated(
        self, llm: Any, embedded: torch.Tensor, mask: torch.Tensor, limits: Sequence[int], ends: int
    ) -> list[list[int]]:
        """As `greedy.generate`, for any language model."""
        ids = llm.generate(
            inputs_embeds=embedded,
            attention_mask=mask,
            generation_config=GenerationConfig(max_new_tokens=max(limits), **self._generation),
            stopping_criteria=StoppingCriteriaList([RowLimits(limits, self._device)]),
        )
        return [greedy.until(ends, row[:limit]) for row, limit in zip(ids.tolist(), limits)]

    def _with_prompt(self, heard: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompt and frames of each piece, padded on the left: (batch, tokens, width), and which are real."""
        before, after = self._prompt
        longest = len(before) + max(map(len, heard)) + len(after)
        embedded = before.new_zeros(len(heard), longest, before.shape[1])
        mask = torch.zeros(len(heard), longest, dtype=torch.long, device=before.device)
        for row, frames in enumerate(heard):
            own = torch.cat([before, frames.to(before.dtype), after])
            embedded[row, longest - len(own) :] = own
            mask[row, longest - len(own) :] = 1
        return embedded, mask

    def _transcript(self, ids: list[int], limit: int) -> Transcript:
        text = str(self._tokenizer.ids_to_text(ids)).strip()
        return Transcript(text, flagged=None if len(ids) < limit else f"the text did not end within {limit} tokens")

    @torch.inference_mode()
    def _embedded(self, ids: torch.Tensor, tag: int) -> Prompt:
        at = int((ids == tag).nonzero()[0, 0])
        embed = self._llm.get_input_embeddings()
        ids = ids.to(self._device)
        return Prompt(embed(ids[:at]), embed(ids[at + 1 :]))

    def close(self) -> None:
        """Free the weights."""
        del self._llm, self._perception


def _prompt_ids(model: SALM, prompt: str) -> torch.Tensor:
    """The tokens of the prompt, with exactly one place for the audio. UsageError where it has none or several."""
    tag = model.audio_locator_tag
    message = prompt if tag in prompt else f"{prompt} {tag}"
    formatter = PromptFormatter.resolve(model.cfg.prompt_format)(model.tokenizer)
    turns = [{"role": "user", "slots": {"message": message}}]
    ids: torch.Tensor = formatter.encode_dialog(turns=turns)["input_ids"]
    count = int((ids == model.audio_locator_tag_id).sum())
    if count != 1:
        raise UsageError(
            f"The prompt {prompt!r} has {count} places for the audio. Write {tag} once, where the audio belongs, or "
            "leave it out: it is then put at the end."
        )
    return ids


def _merged(model: SALM) -> Any:
    """The language model with its embeddings inside and LoRA added to its weights."""
    llm = model.llm
    if isinstance(llm, PeftModel):
        llm.base_model.model.model.embed_tokens = model.embed_tokens
        return llm.merge_and_unload()
    llm.model.embed_tokens = model.embed_tokens
    return llm


def load(found: Model, settings: Settings, resources: Resources) -> Salm:
    """The SALM of a folder. UsageError: its weights are not all there."""
    place = device.choose(settings.get("precision", "auto"), resources)
    nemo_model.quiet()
    model = SALM.from_pretrained(str(found.path), local_files_only=True).eval()
    nemo_model.verify_weights(model, found)
    return Salm(model, place, settings.get("prompt") or PROMPT)
