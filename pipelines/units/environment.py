"""Whether the packages that the units need are here, said in words before anything is imported."""

from __future__ import annotations

import importlib

from pipelines.core.errors import EnvironmentNotFit
from pipelines.core.pipeline import Parameters

_NATIVE = ("numpy", "soundfile", "soxr", "torch", "safetensors")
_REFERENCE = ("numpy", "soundfile", "soxr", "torch", "joblib", "sklearn", "fairseq")


def verify(parameters: Parameters) -> None:
    """Raise EnvironmentNotFit, with the command that mends it, if a package cannot be imported."""
    is_native = parameters.get("backend", "native") == "native"
    environment = "units" if is_native else "sts"
    for name in _NATIVE if is_native else _REFERENCE:
        try:
            importlib.import_module(name)
        except (ImportError, OSError) as error:
            raise EnvironmentNotFit(
                f"This Python cannot import {name}, which the units need ({error}). Make the environment with "
                f"`./voxarray env create {environment}` and run in that."
            ) from None
