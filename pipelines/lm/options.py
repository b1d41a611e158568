"""The options of `lm`: the seed's flags, with hyphens or underscores, and what people expect beside them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, Union

from pipelines.core.errors import UsageError
from pipelines.core.pipeline import Parameters
from pipelines.lm import grid
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
    _Option("seed", int, 42, 0, 1 << 31, "of the split, the weights and the order"),
)
_DATA = (
    _Option("train_ratio", float, 0.9, 0.01, 0.999, "share of the units to train on"),
    _Option("test_ratio", float, 0.0, 0, 0.9, "share that is kept for a test, from training and from validation"),
)
GRID_NAMES = tuple(option.name for option in (*_MODEL, *_TRAINING) if option.name != "seed") + ("model", "seed")
"""What a grid may vary."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the operand UNITS and the options."""
    parser.add_argument(
        "units",
        metavar="UNITS",
        nargs="?",
        help="output/DATASET/units, as `encode` wrote them, or a folder of .pt files (default: those the manifest names)",
    )
    model = parser.add_argument_group("model")
    model.add_argument("--model", choices=MODELS, default=MODELS[0], help="(default: lstm)")
    _add(model, _MODEL)
    _add(parser.add_argument_group("training"), _TRAINING)
    how = parser.add_argument_group("how")
    how.add_argument("--schedule", choices=("cosine", "constant"), default="cosine", help="(default: cosine)")
    how.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="(default: fp32)")
    how.add_argument(
        "--grid",
        metavar="FILE",
        nargs="?",
        const=grid.DEFAULT,
        help="train every combination of the values in a TOML file (`hidden_size = [256, 512]`); without FILE the 16 of "
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
    data.add_argument("--raw", action="store_true", help="one unit a frame, though the units are deduplicated")
    data.add_argument("--load-on-the-fly", "--load_on_the_fly", action="store_true", help=argparse.SUPPRESS)
    data.add_argument("--tokens-dir", "--tokens_dir", dest="tokens", metavar="DIR", help=argparse.SUPPRESS)


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
    """The validated options, every default filled in, and the grid. Raises UsageError."""
    source = Path(options.source).expanduser().absolute()
    base = {option.name: getattr(options, option.name) for option in (*_MODEL, *_TRAINING, *_DATA)}
    base.update(model=options.model, schedule=options.schedule, precision=options.precision)
    varied = grid.read(options.grid, GRID_NAMES) if options.grid is not None else {}
    for settings in grid.combinations({**base}, varied):
        verify(settings)
    folder = units_folder(options.units or options.tokens, source)
    return {
        **base,
        "grid": varied,
        "units": str(folder),
        "split_by": options.split_by,
        "raw": options.raw,
        "vocabulary_size": _vocabulary(folder),
    }


def verify(settings: Parameters) -> None:
    """Raise UsageError where a setting is out of bounds, or two do not go together."""
    for option in (*_MODEL, *_TRAINING, *_DATA):
        value = settings[option.name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not option.least <= value <= option.most:
            raise UsageError(
                f"--{option.name.replace('_', '-')} is {value!r}, and must be from {option.least:g} to {option.most:g}: "
                f"{option.help}."
            )
    if settings["train_ratio"] + settings["test_ratio"] >= 1:
        raise UsageError(
            f"--train-ratio {settings['train_ratio']:g} and --test-ratio {settings['test_ratio']:g} leave nothing for "
            "validation; together they must be less than 1."
        )
    if settings["model"] not in MODELS:
        raise UsageError(f"There is no model {settings['model']!r}; there are {', '.join(MODELS)}.")
    if settings["model"] == "transformer" and settings["hidden_size"] % (2 * settings["num_heads"]):
        raise UsageError(
            f"--hidden-size {settings['hidden_size']} cannot be shared by --num-heads {settings['num_heads']}: each head "
            "gets as many numbers as another, and an even number of them."
        )


def units_folder(given: Optional[str], source: Path) -> Path:
    """The folder of units: as given, else as the manifest's first row that names one. Raises UsageError."""
    if given is not None:
        folder = Path(given).expanduser().absolute()
        if not folder.is_dir():
            raise UsageError(f"UNITS is {folder}, which is not a folder here. `encode` writes output/DATASET/units.")
        return folder / "units" if (folder / "units" / "units.json").exists() else folder
    from pipelines.core import manifest

    for item in manifest.items(source, keyed=False):
        where = item.fields().get("units_filepath")
        if isinstance(where, str) and not where.endswith(".pt"):
            return Path(where)
        if item.index > 1000:
            break
    raise UsageError(
        f"{source} names no packed units (`units_filepath`). `./voxarray encode {source} DATASET` makes them and writes "
        "that into the manifest; or name the folder: `./voxarray lm MANIFEST UNITS`."
    )


def _vocabulary(folder: Path) -> Optional[int]:
    """Units of the vocabulary; None for a folder of `.pt` files, which do not say."""
    if not (folder / "units.json").exists() and any(folder.rglob("*.pt")):
        return None
    return packed.describe(folder).vocabulary_size
