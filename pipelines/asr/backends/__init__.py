"""Recognisers of speech behind one small interface, chosen by a model's name or folder, imported when loaded."""

from __future__ import annotations

import os

from pipelines.asr.backends import locate
from pipelines.asr.backends.base import PRECISIONS, Backend, Settings, Transcript, Word
from pipelines.core.errors import UsageError
from pipelines.core.pipeline import Resources

__all__ = ["PRECISIONS", "SETTINGS", "Backend", "Settings", "Transcript", "Word", "choose", "load"]

SETTINGS = {
    "salm": ("precision", "prompt"),
    "nemo": ("precision", "language", "decoder"),
    "transformers": ("precision", "language"),
    "pocketsphinx": (),
}
"""Every backend, and the settings that it can honour."""


def choose(model: str) -> str:
    """The backend that runs a model: a name of the hub, a folder, a .nemo file, or `pocketsphinx`. UsageError."""
    return locate.choose(model)


def load(backend: str, model: str, settings: Settings, resources: Resources) -> Backend:
    """The model, ready to work. UsageError: it is not here or not whole; EnvironmentNotFit: no GPU can be used."""
    # Tasks never download: a thousand of them would, and compute nodes often cannot. `locate` has found every file.
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ[variable] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    found = locate.locate(model)
    if found.backend != backend:
        raise UsageError(
            f"The model {model} is run by {found.backend}, not by {backend}: it changed since the run began."
        )
    if backend == "pocketsphinx":
        from pipelines.asr.backends import pocketsphinx

        return pocketsphinx.load(resources)
    if backend == "salm":
        from pipelines.asr.backends import salm

        return salm.load(found, settings, resources)
    if backend == "nemo":
        from pipelines.asr.backends import nemo

        return nemo.load(found, settings, resources)
    from pipelines.asr.backends import transformers

    return transformers.load(found, settings, resources)
