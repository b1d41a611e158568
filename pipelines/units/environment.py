"""Whether the packages that the units need are here, said in words before anything is imported."""

from __future__ import annotations

import importlib
from typing import Sequence

from pipelines.core.errors import EnvironmentNotFit
from pipelines.core.pipeline import Parameters

_NATIVE = ("numpy", "soundfile", "soxr", "torch", "safetensors")
_REFERENCE = ("numpy", "soundfile", "soxr", "torch", "joblib", "sklearn", "fairseq")


def verify(parameters: Parameters) -> None:
    """Raise EnvironmentNotFit, with the command that mends it, if a package of the backend cannot be imported."""
    if parameters.get("backend", "native") == "native":
        verify_packages("units", _NATIVE)
    else:
        verify_packages("sts", _REFERENCE)


def verify_packages(environment: str, packages: Sequence[str]) -> None:
    """Raise EnvironmentNotFit if a package cannot be imported."""
    for name in packages:
        try:
            importlib.import_module(name)
        except (ImportError, OSError) as error:
            raise EnvironmentNotFit(
                f"This Python cannot import {name}, which is needed here ({error}). Make the environment with "
                f"`./voxarray env create {environment}` and run in that."
            ) from None
