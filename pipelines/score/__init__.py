"""What sequences of units are worth to a language model, added to their manifest."""

from __future__ import annotations

from pipelines.core.pipeline import Parameters, Pipeline, Processor, Resources
from pipelines.score.options import add_arguments, parameters


def load(parameters: Parameters, resources: Resources) -> Processor:
    """The model, ready to judge; imports torch. Raises EnvironmentNotFit, UsageError."""
    from pipelines.units import environment

    environment.verify_packages("lm", ("numpy", "torch", "safetensors"))
    from pipelines.score.processor import ScoreProcessor

    return ScoreProcessor(parameters, resources)


PIPELINE = Pipeline(
    name="score",
    summary="Log-probabilities of sequences of units under a language model.",
    load=load,
    environment="lm",
    requires=("audio_filepath",),
    add_arguments=add_arguments,
    parameters=parameters,
)
