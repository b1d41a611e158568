"""The options of `encode` that change results."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Optional, Sequence

from pipelines.core import paths
from pipelines.core.manifest import Item
from pipelines.core.pipeline import Parameters
from pipelines.units import naming
from pipelines.units import options as units

PACKED, PT = "packed", "pt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the operand DATASET and the options."""
    naming.add_arguments(parser)
    units.add_arguments(parser)
    group = parser.add_argument_group("what is written")
    group.add_argument(
        "--format",
        choices=(PACKED, PT),
        default=PACKED,
        help="packed: shards of 16-bit integers with an index, in output/DATASET/units; pt: a tensor a recording, "
        "output/DATASET/….pt (default: packed)",
    )
    group.add_argument(
        "--deduplicate",
        action="store_true",
        default=True,
        help="runs of equal units become one, their durations kept beside them (in packed units; the default)",
    )
    group.add_argument("--no-deduplicate", dest="deduplicate", action="store_false", help="one unit a frame")
    naming.add_root(group)  # type: ignore[arg-type]


def parameters(options: argparse.Namespace) -> Parameters:
    """The validated options, every default filled in. Raises UsageError."""
    values: dict[str, Any] = {
        "dataset": naming.dataset(options),
        "root": naming.root(options),
        "format": options.format,
        "deduplicate": options.deduplicate,
        **units.parameters(options),
    }
    manifest = paths.absolute(options.source)
    if options.format == PACKED:  # packed units are one manifest's; files of units may be of many
        values["manifest"] = str(manifest)
    else:
        naming.verify_source(place(values), "units", manifest, values)
    naming.verify_free(place(values), "units", made(values))
    return values


def needs(options: argparse.Namespace) -> Optional[Sequence[str]]:
    """The command that fits the codebook, where that is to be done first."""
    if options.format == PT:
        naming.verify(options)
    else:
        naming.dataset(options)
    return units.needs(options)


def place(parameters: Parameters) -> Path:
    """The folder that results go to."""
    where = naming.folder(parameters["dataset"])
    return where / "units" if parameters["format"] == PACKED else where


def made(parameters: Parameters) -> dict[str, Any]:
    """How what lies there is made."""
    names = ("units", "codebook_digest", "dense_digest", "backend", "precision", "chunking", "deduplicate", "manifest")
    return {name: parameters[name] for name in names if name in parameters}


def output_name(item: Item, parameters: Parameters) -> Optional[str]:
    """The file of an item's units; packed units need none."""
    return None if parameters["format"] == PACKED else naming.file_name(item, parameters, PT)
