"""The options of `lm`: the seed's flags, with hyphens or underscores, and what people expect beside them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, Union

from pipelines.core import paths
from pipelines.core.errors import UsageError
from pipelines.core.pipeline import Parameters
from pipelines.lm import grid, rows, tensors
from pipelines.units import packed

MODELS = ("lstm", "transformer")
Value = Union[int, float, str]


class _Option(NamedTuple):
    """One number: its name, kind, default, least, most (excluded where `open`), and its help."""

    name: str
    kind: Callable[[str], Any]
    default: Optional[Value]
    least: float
    most: float
    help: str


_MODEL = (
    _Option("embedding_dim", int, 256, 1, 1 << 16, "numbers that a unit is embedded in (lstm)"),
    _Option("hidden_size", int, 512, 1, 1 << 16, "width of the hidden layers"),
    _Option("num_layers", int, 2, 1, 256, "layers"),
    _Option("num_heads", int, 8, 1, 256, "attention heads (transformer)"),
    _Option("dropout", float, 0.1, 0, 0.99, "share of activations that is dropped"),
)
_TRAINING = (
    _Option("batch_size", int, 32, 1, 1 << 20, "sequences in a batch at most"),
    _Option("batch_tokens", int, 65536, 16, 1 << 30, "tokens in a batch at most, padding included"),
    _Option("accumulate", int, 1, 1, 1 << 16, "batches that make one update"),
    _Option("learning_rate", float, 0.001, 1e-9, 10, "of AdamW, once warmed up"),
    _Option("weight_decay", float, 0.01, 0, 10, "of AdamW"),
    _Option("warmup_steps", int, 100, 0, 1 << 30, "updates over which the learning rate rises"),
    _Option("clip", float, 1.0, 1e-6, 1e6, "largest norm of the gradient"),
    _Option("num_epochs", int, 100, 0, 1 << 20, "passes over the training units at most"),
    _Option("early_stopping", int, 10, 0, 1 << 20, "epochs without improvement that end the training (0: never)"),
    _Option("max_length", int, 2048, 8, 1 << 24, "longer sequences are cut into stretches of so many units"),
    _Option("seed", int, 42, 0, 1 << 31, "of the weights, of the batches' order and of dropout"),
)
_DATA = (
    _Option("train_ratio", float, 0.9, 0.01, 0.999, "share of the groups to train on, the rest for validation"),
    _Option("test_ratio", float, 0.0, 0, 0.9, "share of the groups that is kept for a test, before that"),
)
CHOICES = {"model": MODELS, "schedule": ("cosine", "constant"), "precision": ("fp32", "bf16")}
GRID_NAMES = (*CHOICES, *(option.name for option in (*_MODEL, *_TRAINING)))
"""What a grid may vary: all but the data, so that its models can be compared."""
_NOT_OF_LSTM, _NOT_OF_TRANSFORMER = ("num_heads",), ("embedding_dim",)
_LOOKED_AT = 1000
"""Rows of the manifest that are looked at for the place of the units."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the operand UNITS and the options."""
    parser.add_argument(
        "units",
        metavar="UNITS",
        nargs="?",
        help="output/DATASET/units, as `encode` wrote them, or a folder of .pt files (default: as the manifest says)",
    )
    model = parser.add_argument_group("model")
    model.add_argument("--model", choices=MODELS, default=MODELS[0], help="(default: lstm)")
    _add(model, _MODEL)
    _add(parser.add_argument_group("training"), _TRAINING)
    how = parser.add_argument_group("how")
    how.add_argument("--schedule", choices=CHOICES["schedule"], default="cosine", help="(default: cosine)")
    how.add_argument("--precision", choices=CHOICES["precision"], default="fp32", help="(default: fp32)")
    how.add_argument(
        "--grid",
        metavar="FILE",
        nargs="?",
        const=grid.DEFAULT,
        help="train every combination of a TOML file's values (`hidden_size = [256, 512]`); without FILE the 16 of "
        "embedding_dim 128 256, hidden_size 256 512, num_layers 2 3, dropout 0.1 0.2",
    )
    data = parser.add_argument_group("data")
    _add(data, _DATA)
    data.add_argument(
        "--split-by",
        "--split_by",
        metavar="FIELD",
        default="file",
        help="what no two parts share: file, or a field of the manifest, like speaker (default: file)",
    )
    data.add_argument(
        "--split-seed",
        "--split_seed",
        type=int,
        metavar="N",
        help="of the split (default: the seed on the command line)",
    )
    data.add_argument("--raw", action="store_true", help="one unit a frame, though the units are deduplicated")
    data.add_argument(
        "--skip-missing", "--skip_missing", action="store_true", help="leave items without units out; else refuse them"
    )
    data.add_argument(
        "--vocabulary-size",
        "--vocabulary_size",
        type=int,
        metavar="N",
        help="different units (default: as the packed units say; for .pt files the largest and one)",
    )
    data.add_argument(
        "--load-on-the-fly",
        "--load_on_the_fly",
        action="store_true",
        help="accepted for the sake of older scripts: units are always read from the disk as they are needed",
    )
    data.add_argument("--tokens-dir", "--tokens_dir", dest="tokens", metavar="DIR", help="another way to give UNITS")


def _add(group: Any, options: tuple[_Option, ...]) -> None:
    for option in options:
        flags = dict.fromkeys([f"--{option.name.replace('_', '-')}", f"--{option.name}"])
        group.add_argument(
            *flags,
            dest=option.name,
            type=option.kind,
            default=option.default,
            metavar="N" if option.kind is int else "X",
            help=f"{option.help} (default: {option.default:g})",
        )


def parameters(options: argparse.Namespace) -> Parameters:
    """The validated options, every default filled in, and the grid. Raises UsageError.

    `vocabulary_size` None: to be found in the files of units.
    """
    source = paths.absolute(options.source)
    base = {name: getattr(options, name) for name in GRID_NAMES}
    data = {option.name: getattr(options, option.name) for option in _DATA}
    varied = grid.read(options.grid, GRID_NAMES) if options.grid is not None else {}
    grid.verify_useful(base, varied, {"lstm": _NOT_OF_LSTM, "transformer": _NOT_OF_TRANSFORMER})
    for settings in grid.combinations(base, varied):
        verify({**settings, **data})
    folder = units_folder(options.units or options.tokens, source)
    size, digest = _vocabulary(folder, options.vocabulary_size, source, options.raw)
    _verify_group(source, options.split_by)
    return {
        **base,
        **data,
        "grid": varied,
        "units": str(folder),
        "units_digest": digest,
        "vocabulary_size": size,
        "split_by": options.split_by,
        "split_seed": options.seed if options.split_seed is None else options.split_seed,
        "raw": options.raw,
        "skip_missing": options.skip_missing,
    }


def verify(settings: Parameters) -> None:
    """Raise UsageError where a setting is out of bounds, or two do not go together."""
    for option in (*_MODEL, *_TRAINING, *_DATA):
        value = settings[option.name]
        whole = option.kind is int
        if (
            isinstance(value, bool)
            or not isinstance(value, int if whole else (int, float))
            or not option.least <= value <= option.most
        ):
            raise UsageError(
                f"--{option.name.replace('_', '-')} is {value!r}, and must be a{' whole' if whole else ''} number "
                f"from {option.least:g} to {option.most:g}: {option.help}."
            )
    for name, choices in CHOICES.items():
        if settings[name] not in choices:
            raise UsageError(f"There is no {name} {settings[name]!r}; there are {' and '.join(choices)}.")
    if settings["model"] == "transformer" and settings["hidden_size"] % (2 * settings["num_heads"]):
        raise UsageError(
            f"--hidden-size {settings['hidden_size']} cannot be shared by --num-heads {settings['num_heads']}: each "
            "head gets as many numbers as another, and an even number of them."
        )


def units_folder(given: Optional[str], source: Path) -> Path:
    """The folder of units: as given, else as the manifest's rows say. Raises UsageError."""
    if given is not None:
        folder = paths.absolute(given)
        if not folder.is_dir():
            raise UsageError(f"UNITS is {folder}, and there is no such folder. `encode` writes output/DATASET/units.")
        return folder / "units" if (folder / "units" / "units.json").exists() else folder
    if source.suffix != ".csv":
        for item in rows.items(source):
            where = item.fields().get("units_filepath")
            if isinstance(where, str) and not where.endswith(".pt"):
                return Path(where)
            if item.index > _LOOKED_AT:
                break
    raise UsageError(
        f"{source} names no packed units (`units_filepath`). `./voxarray encode {source} DATASET` makes them and "
        "writes that into the manifest; or name the folder of units: `./voxarray lm MANIFEST UNITS`."
    )


def _vocabulary(folder: Path, given: Optional[int], source: Path, raw: bool) -> tuple[Optional[int], str]:
    """The size of the vocabulary (`.pt` files do not tell it), and the digest of the units."""
    if given is not None and not 1 <= given <= 1 << 16:
        raise UsageError(f"--vocabulary-size is {given}, and must be from 1 to 65,536.")
    if not (folder / "units.json").exists() and next(folder.rglob("*.pt"), None) is not None:
        if raw and tensors.deduplicated(folder):
            raise UsageError(
                f"--raw asks for one unit a frame, and the files in {folder} have runs of equal units as one, their "
                "timing lost. Leave --raw out, or encode again, into another DATASET, with --no-deduplicate."
            )
        return given, tensors.digest(source, folder)
    described = packed.describe(folder)
    if source.suffix == ".csv":
        raise UsageError(
            f"{source} is a CSV table, which goes with a folder of .pt files, and the units in {folder} are packed. "
            f"Give a JSONL manifest of the recordings, or of all that is there: `./voxarray lm "
            f"{folder / 'manifest.json'} {folder}`."
        )
    if given is not None and given != described.vocabulary_size:
        raise UsageError(
            f"--vocabulary-size is {given:,}, and the units in {folder} are of {described.vocabulary_size:,}. Leave "
            "the option out, or name the folder that you mean."
        )
    return described.vocabulary_size, described.units_sha256 or described.index_sha256


def _verify_group(source: Path, field: str) -> None:
    """Refuse a field that the first row lacks before a job waits in a queue for it."""
    if field == "file" or source.suffix == ".csv":
        return
    first = next(rows.items(source), None)
    if first is not None and field not in first.fields():
        raise UsageError(
            f"--split-by {field}: the first row of {source} has no such field, only "
            f"{', '.join(sorted(first.fields()))}. Add it to every row, or split by recording (--split-by file)."
        )
