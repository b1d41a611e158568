"""The options of `score`."""

from __future__ import annotations

import argparse
import re

from pipelines.core import store
from pipelines.core.errors import UsageError
from pipelines.core.pipeline import Parameters
from pipelines.language import files

_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the operand MODEL and the options."""
    parser.add_argument(
        "checkpoint",
        metavar="MODEL",
        help="a folder of `lm` (output/checkpoints/RUN/NAME), its best.safetensors, or a grid's folder: its best",
    )
    parser.add_argument(
        "--field",
        metavar="NAME",
        help="put NAME_ before the fields' names, so that several models' scores fit into one manifest",
    )


def parameters(options: argparse.Namespace) -> Parameters:
    """The validated options: the model by its file and digest. Raises UsageError."""
    if options.field is not None and not _FIELD.fullmatch(options.field):
        raise UsageError(f"--field is {options.field!r}, and must be a name: letters, digits, and _ . - (not first).")
    path = files.describe(files.find(options.checkpoint)).path
    return {"model": str(path), "model_digest": store.sha256_of(path), "field": options.field}
