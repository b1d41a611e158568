"""Grids of settings: each combination is an item of the run, and has a folder named after what varies."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Mapping, Sequence

from pipelines.core.errors import UsageError

DEFAULT = "default"
SEED: Mapping[str, Sequence[Any]] = {
    "embedding_dim": [128, 256],
    "hidden_size": [256, 512],
    "num_layers": [2, 3],
    "dropout": [0.1, 0.2],
}
"""The grid of the published recipe: 16 combinations."""
_MOST = 10_000
_LETTERS = {
    "learning_rate": "r",
    "hidden_size": "h",
    "embedding_dim": "e",
    "num_layers": "l",
    "batch_size": "b",
    "dropout": "d",
}
"""What the published recipe's folder names begin their parts with."""


def read(name: str, known: Sequence[str]) -> dict[str, list[Any]]:
    """The lists of values of a TOML file (a table [grid] or the top). Raises UsageError."""
    if name == DEFAULT:
        return {name: list(values) for name, values in SEED.items()}
    path = Path(name).expanduser()
    table = _parse(path)
    table = table.get("grid", table)
    if not isinstance(table, dict):
        raise UsageError(
            f"{path}: `grid` must be a table: a line `[grid]`, and below it lines like `num_layers = [1, 2]`."
        )
    for key, values in table.items():
        if key not in known:
            raise UsageError(
                f"{path} varies {key!r}, which is no setting of a model or its training. There are {', '.join(known)}."
            )
        if not isinstance(values, list) or not values or len(set(map(str, values))) < len(values):
            raise UsageError(
                f"{path}: {key} must be a list of different values, like `{key} = [1, 2]`; it is {values!r}."
            )
    if not table:
        raise UsageError(
            f"{path} varies nothing. Name settings with lists of values, like `hidden_size = [256, 512]`."
        )
    count = 1
    for values in table.values():
        count *= len(values)
    if count > _MOST:
        raise UsageError(f"{path} comes to {count:,} combinations; {_MOST:,} are the most that one grid may have.")
    return {str(key): list(values) for key, values in table.items()}


def verify_useful(
    base: Mapping[str, Any], varied: Mapping[str, Sequence[Any]], useless: Mapping[str, Sequence[str]]
) -> None:
    """Raise UsageError where a grid varies what none of its models has (`useless`: model → names of settings)."""
    for model in varied.get("model", [base["model"]]):
        for name in useless.get(model, ()):
            if name in varied:
                raise UsageError(
                    f"The grid varies {name}, which a {model} does not have: the same training would be done "
                    f"{len(varied[name])} times. Take it out, or give each kind of model a grid of its own."
                )


def _parse(path: Path) -> dict[str, Any]:
    try:
        import tomllib
    except ImportError:  # Python < 3.11
        import tomli as tomllib
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"The grid {path} cannot be read: {error.strerror}. It is a TOML file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"The grid {path} is not TOML that can be read: {error}.") from None
    return table


def combinations(base: Mapping[str, Any], varied: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the varied values, the others as in `base`; the last name varies fastest."""
    names = list(varied)
    return [{**base, **dict(zip(names, values))} for values in itertools.product(*varied.values())]


def name_of(settings: Mapping[str, Any], varied: Mapping[str, Sequence[Any]]) -> str:
    """The folder of a combination: `lstm_r0.001_h512_e256_l2_b32_d0.1`, and what else varies."""
    lettered = dict(_LETTERS)
    if settings["model"] == "transformer":
        del lettered["embedding_dim"]
    parts = [f"{letter}{_spoken(settings[name])}" for name, letter in lettered.items()]
    parts += [f"{name}{_spoken(settings[name])}" for name in sorted(varied) if name not in (*lettered, "model")]
    return "_".join([settings["model"], *parts])


def _spoken(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
