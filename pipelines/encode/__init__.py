"""Speech to discrete units: a manifest of recordings → packed units, or one file of units a recording."""

from __future__ import annotations

from pipelines.core.pipeline import Parameters, Pipeline, Processor, Resources
from pipelines.encode.options import add_arguments, needs, output_name, parameters, place
from pipelines.encode.outputs import EncodeOutput
from pipelines.units import files
from pipelines.units.options import foresee


def load(parameters: Parameters, resources: Resources) -> Processor:
    """The encoder, ready to work; imports torch. Raises EnvironmentNotFit, UsageError."""
    from pipelines.units import environment

    environment.verify(parameters)
    from pipelines.encode.processor import EncodeProcessor

    return EncodeProcessor(parameters, resources)


PIPELINE = Pipeline(
    name="encode",
    summary="Speech to discrete units: log-mel or HuBERT features, k-means.",
    load=load,
    environment="units",
    environments={"backend textless": "sts"},
    add_arguments=add_arguments,
    parameters=parameters,
    outputs=EncodeOutput,
    adds=("units_filepath", "units_row", "num_units"),
    results={"manifest": lambda plan: plan.manifest, "units": lambda plan: str(place(plan.parameters))},
    output_name=output_name,
    is_whole=files.is_whole,
    needs=needs,
    foresee=foresee,
)
