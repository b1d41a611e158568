"""Whether the packages that every engine needs are here, said in words before anything is imported."""

from __future__ import annotations

import importlib

from pipelines.core.errors import EnvironmentNotFit

_PACKAGES = ("numpy", "soundfile", "soxr")


def verify() -> None:
    """Raise EnvironmentNotFit, with the command that mends it, if a package cannot be imported."""
    for name in _PACKAGES:
        try:
            importlib.import_module(name)
        except (ImportError, OSError) as error:
            # soundfile raises OSError where its wheel brings no libsndfile for this platform and the system has none.
            raise EnvironmentNotFit(
                f"This Python cannot import {name}, which VAD needs ({error}). Make the environment with `./voxarray "
                "env create vad` and run in that; by hand: `pip install numpy soundfile soxr`."
            ) from None
