"""Voice activity detection: a directory of recordings → statistics, a manifest, and segments of speech."""

from __future__ import annotations

from pipelines.core.pipeline import Parameters, Pipeline, Processor, Resources
from pipelines.vad.listing import list_items
from pipelines.vad.options import add_arguments, parameters
from pipelines.vad.outputs import VadOutput


def load(parameters: Parameters, resources: Resources) -> Processor:
    """The engine, ready to work; imports numpy and what else it needs. Raises EnvironmentNotFit."""
    from pipelines.vad import environment

    environment.verify()
    from pipelines.vad.processor import Processor as VadProcessor

    return VadProcessor(parameters, resources)


PIPELINE = Pipeline(
    name="vad",
    summary="Voice activity detection: speech and silence statistics, segments and a manifest of recordings.",
    load=load,
    source="directory",
    requires=("audio_filepath",),
    add_arguments=add_arguments,
    parameters=parameters,
    list_items=list_items,
    outputs=VadOutput,
    results={
        "manifest": lambda plan: f"{plan.outputs}.json",
        "segments": lambda plan: f"{plan.outputs}_segments.json",
        "statistics": lambda plan: f"{plan.outputs}.csv",
    },
)
