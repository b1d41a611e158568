"""The options of `sample`, and the items that they come to."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Iterator

from pipelines.core import manifest, paths, store
from pipelines.core.errors import UsageError
from pipelines.core.pipeline import Parameters
from pipelines.language import files
from pipelines.units import naming

_MOST_ITEMS, _MOST_UNITS = 100_000_000, 1 << 20
_PROMPT_FIELDS = ("units_filepath", "units_row", "units", "durations", "offset")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the operand NAME and the options."""
    parser.add_argument(
        "name", metavar="NAME", help="units go to output/NAME/units, their manifest to metadata/NAME.json"
    )
    what = parser.add_argument_group("what is drawn")
    what.add_argument("--items", type=int, metavar="N", help="sequences (default: 1; with --prompts: of each prompt)")
    what.add_argument("--max-units", type=int, default=500, metavar="N", help="units in one at most (default: 500)")
    what.add_argument("--min-units", type=int, default=1, metavar="N", help="units in one at least (default: 1)")
    what.add_argument("--prompts", metavar="MANIFEST", help="begin with the units of this manifest's rows")
    what.add_argument("--prompt-units", type=int, metavar="N", help="only the first N of each (default: all)")
    how = parser.add_argument_group("how it is drawn")
    how.add_argument(
        "--temperature", type=float, default=1.0, metavar="X", help="0: always the likeliest (default: 1)"
    )
    how.add_argument("--top-k", type=int, default=0, metavar="N", help="of the N likeliest only (default: of all)")
    how.add_argument(
        "--top-p", type=float, default=1.0, metavar="X", help="of the likeliest with this share (default: 1)"
    )
    how.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    how.add_argument(
        "--frames-per-unit",
        type=int,
        default=1,
        metavar="N",
        help="frames that each unit lasts, where the model knows runs of equal units as one, and not how long they "
        "last (default: 1)",
    )


def parameters(options: argparse.Namespace) -> Parameters:
    """The validated options; the model by its file and digest. Raises UsageError."""
    _verify(options)
    trained = files.describe(files.find(options.source))
    units = trained.description.units
    if units.raw and options.frames_per_unit != 1:
        raise UsageError(
            f"--frames-per-unit {options.frames_per_unit} does not go with {trained.path}: the model was trained on "
            "one unit a frame, so the timing is in what it says. Leave the option out."
        )
    prompts = paths.absolute(options.prompts) if options.prompts else None
    if prompts is not None and not prompts.is_file():
        raise UsageError(f"--prompts is {prompts}, and there is no such manifest.")
    values: dict[str, Any] = {
        "name": naming.dataset(argparse.Namespace(dataset=options.name)),
        "model": str(trained.path),
        "model_digest": store.sha256_of(trained.path),
        "items": 1 if options.items is None else options.items,
        "prompts": str(prompts) if prompts else None,
        "prompts_digest": store.sha256_of(prompts) if prompts else None,
        "prompt_units": options.prompt_units,
        "max_units": options.max_units,
        "min_units": options.min_units,
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "seed": options.seed,
        "frames_per_unit": options.frames_per_unit,
    }
    _verify_free(values)
    return values


def _verify(options: argparse.Namespace) -> None:
    """Raise UsageError where an option is out of bounds, or two do not go together."""
    for flag, value, least, most in (
        ("items", 1 if options.items is None else options.items, 1, _MOST_ITEMS),
        ("max-units", options.max_units, 1, _MOST_UNITS),
        ("min-units", options.min_units, 1, options.max_units),
        ("prompt-units", 1 if options.prompt_units is None else options.prompt_units, 1, _MOST_UNITS),
        ("temperature", options.temperature, 0, 100),
        ("top-k", options.top_k, 0, 1 << 16),
        ("top-p", options.top_p, 1e-6, 1),
        ("seed", options.seed, 0, (1 << 63) - 1),
        ("frames-per-unit", options.frames_per_unit, 1, 65_535),
    ):
        if not least <= value <= most:
            raise UsageError(f"--{flag} is {value:,}, and must be from {least:g} to {most:,}.")
    if options.prompt_units is not None and options.prompts is None:
        raise UsageError("--prompt-units says how much of each prompt is used, and there is no --prompts.")


def folder(parameters: Parameters) -> Path:
    """Where the packed units go."""
    return naming.folder(parameters["name"]) / "units"


def listing(parameters: Parameters) -> Path:
    """Where the manifest goes: not where `sts` writes its own, output/NAME/NAME.json."""
    return paths.metadata() / f"{parameters['name']}.json"


def _verify_free(values: Parameters) -> None:
    """Raise UsageError where the name belongs to other units, or to a manifest of something else."""
    naming.verify_free(folder(values), "units", values)
    if listing(values).exists() and not (folder(values) / ".units.json").exists():
        raise UsageError(
            f"There is a manifest {listing(values)} already, and not of samples. Give these another NAME, so that "
            "nothing takes the one for the other."
        )


def rows(parameters: Parameters) -> Iterator[dict[str, Any]]:
    """The items. Their numbers are what their random numbers depend on, with the seed."""
    top, items = naming.folder(parameters["name"]), parameters["items"]
    if parameters["prompts"] is None:
        for number in range(items):
            yield {"audio_filepath": f"{top}/{number:08d}.wav", "number": number}
        return
    path = Path(parameters["prompts"])
    if store.sha256_of(path) != parameters["prompts_digest"]:
        raise UsageError(f"The manifest of prompts {path} changed just now. Give the command again once it is whole.")
    for prompt in manifest.items(path, keyed=False):
        fields = prompt.fields()
        said = {f"prompt_{name}": fields[name] for name in _PROMPT_FIELDS if name in fields}
        for turn in range(items):
            number = prompt.index * items + turn
            name = f"{top}/{prompt.index:08d}_{turn:04d}.wav"
            yield {"audio_filepath": name, "number": number, "prompt_filepath": prompt.audio_filepath, **said}
