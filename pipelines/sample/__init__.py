"""Sequences of units drawn from a language model: packed units, and a manifest that `sts --from units` can speak."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

from pipelines.core.pipeline import Parameters, Pipeline, Processor, Resources
from pipelines.sample import options
from pipelines.sample.outputs import SampleOutput


def load(parameters: Parameters, resources: Resources) -> Processor:
    """The model, ready to draw from; imports torch. Raises EnvironmentNotFit, UsageError."""
    from pipelines.units import environment

    environment.verify_packages("lm", ("numpy", "torch", "safetensors"))
    from pipelines.sample.processor import SampleProcessor

    return SampleProcessor(parameters, resources)


def list_items(source: Path, parameters: Parameters) -> Iterator[dict[str, Any]]:
    """One item a sequence: its number, the recording that `sts` may make of it, and what it begins with."""
    del source  # the parameters say which of its models it is
    return options.rows(parameters)


PIPELINE = Pipeline(
    name="sample",
    summary="Sequences of units drawn from a language model.",
    load=load,
    environment="lm",
    source="listed",
    operand=("MODEL", "a model: its folder, or the folder of a grid, whose best is taken"),
    add_arguments=options.add_arguments,
    parameters=options.parameters,
    list_items=list_items,
    outputs=SampleOutput,
    results={
        "manifest": lambda plan: str(options.listing(plan.parameters)),
        "units": lambda plan: str(options.folder(plan.parameters)),
    },
)
