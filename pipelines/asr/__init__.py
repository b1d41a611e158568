"""Transcripts: a manifest of recordings → the same manifest with `text`, whatever their length."""

from __future__ import annotations

from pipelines.asr.options import add_arguments, foresee, parameters
from pipelines.asr.outputs import outputs
from pipelines.core.pipeline import Parameters, Pipeline, Processor, Resources


def load(parameters: Parameters, resources: Resources) -> Processor:
    """The model, ready to work. Raises EnvironmentNotFit, UsageError."""
    from pipelines.asr.processor import AsrProcessor

    return AsrProcessor(parameters, resources)


PIPELINE = Pipeline(
    name="asr",
    summary="Transcripts: Canary-Qwen, NeMo, wav2vec2, Whisper, or PocketSphinx; audio of any length.",
    load=load,
    environment="asr",
    add_arguments=add_arguments,
    parameters=parameters,
    foresee=foresee,
    outputs=outputs,
    adds=("text", "segments", "words", "flags"),
)
