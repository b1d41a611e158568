"""k-means on features of a manifest's recordings: the codebook that makes units of them, as a model folder."""

from __future__ import annotations

from pipelines.core.pipeline import Output, Parameters, Pipeline, Processor, Resources
from pipelines.core.plan import Plan
from pipelines.kmeans.options import add_arguments, parameters


def load(parameters: Parameters, resources: Resources) -> Processor:
    """The features' model, ready to work; imports torch. Raises EnvironmentNotFit, UsageError."""
    from pipelines.units import environment

    environment.verify(parameters)
    from pipelines.kmeans.processor import SampleProcessor

    return SampleProcessor(parameters, resources)


def outputs(plan: Plan) -> Output:
    """The consumer of the merge, which fits; imports torch."""
    from pipelines.units import environment

    environment.verify(plan.parameters)
    from pipelines.kmeans.outputs import CodebookOutput

    return CodebookOutput(plan)


PIPELINE = Pipeline(
    name="kmeans",
    summary="A codebook of units: k-means on a sample of the frames of a manifest's recordings.",
    load=load,
    environment="units",
    add_arguments=add_arguments,
    parameters=parameters,
    outputs=outputs,
    results={"manifest": lambda plan: plan.manifest, "model": lambda plan: str(plan.parameters["name"])},
    merge_in_environment=True,
)
