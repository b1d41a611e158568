"""Recognisers of Hugging Face's transformers: those with CTC (wav2vec 2.0, HuBERT, …) and Whisper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.asr.backends import contents, device
from pipelines.asr.backends.base import Backend, Settings, refuse
from pipelines.asr.backends.locate import Model
from pipelines.core.errors import UsageError
from pipelines.core.pipeline import Resources


def load(found: Model, settings: Settings, resources: Resources) -> Backend:
    """The recogniser of a folder. UsageError: its weights are not all there."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    place = device.choose(settings.get("precision", "auto"), resources)
    folder = Path(str(found.path))
    if contents.config_of(folder).get("model_type") == contents.WHISPER:
        from transformers import WhisperForConditionalGeneration

        from pipelines.asr.backends.whisper import Whisper

        model = _loaded(WhisperForConditionalGeneration, folder, place)
        return Whisper(model, folder, place, settings.get("language"))
    refuse(settings, "language", found.name)
    from transformers import AutoModelForCTC

    from pipelines.asr.backends.ctc import Ctc

    return Ctc(_loaded(AutoModelForCTC, folder, place), folder, place, resources.cpus)


def _loaded(kind: Any, folder: Path, place: device.Place) -> Any:
    """A model in evaluation mode on its device; UsageError where weights are missing: they would be random."""
    model, report = kind.from_pretrained(str(folder), local_files_only=True, output_loading_info=True)
    missing = sorted(name for name in report["missing_keys"] if "masked_spec_embed" not in name)
    if missing or report["mismatched_keys"]:
        raise UsageError(
            f"The model in {folder} cannot transcribe: its file lacks {', '.join(missing[:5]) or 'nothing'}, and "
            f"{len(report['mismatched_keys'])} weights have other shapes than config.json says. A model that was only "
            "pre-trained has no output layer: give one that was fine-tuned for transcription."
        )
    model = model.to(place.device, place.dtype).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model
