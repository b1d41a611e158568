"""Speech to speech: a manifest of recordings (or of units) → the same speech said again from its discrete units."""

from __future__ import annotations

from pipelines.core.pipeline import Parameters, Pipeline, Processor, Resources
from pipelines.sts.options import add_arguments, foresee, needs, output_name, parameters
from pipelines.sts.outputs import StsOutput, manifest_of
from pipelines.units import files


def load(parameters: Parameters, resources: Resources) -> Processor:
    """Encoder and vocoder, ready to work; imports torch. Raises EnvironmentNotFit, UsageError."""
    from pipelines.units import environment

    environment.verify(parameters)
    from pipelines.sts.processor import StsProcessor

    return StsProcessor(parameters, resources)


PIPELINE = Pipeline(
    name="sts",
    summary="Speech said again from its discrete units: a file for each recording, or row of units.",
    load=load,
    environment="units",
    environments={"backend textless": "sts"},
    requires=("audio_filepath",),
    add_arguments=add_arguments,
    parameters=parameters,
    outputs=StsOutput,
    results={"manifest": lambda plan: str(manifest_of(plan)), "folder": lambda plan: str(manifest_of(plan).parent)},
    output_name=output_name,
    is_whole=files.is_whole,
    needs=needs,
    foresee=foresee,
)
