"""Recipes: TOML files that say which commands make a chain.

    title = "Units and resynthesis"

    [values]                                  # what may be set: voxarray run RECIPE NAME=VALUE …
    recordings = { about = "directory of recordings", path = true }        # without a default: must be given
    dataset = "corpus"

    [[step]]
    name = "vad"
    run = "vad {recordings} {metadata}/{dataset}"                          # a command line of voxarray

    [[step]]
    name = "units"
    run = "encode {vad.manifest} {dataset}-{units} --units {units}"        # {step.result}: what another step leaves
    launch = "--tasks 16"                     # launch flags of this step, --gpus 1 among them
    after = ["vad"]                           # instead of the step above (and of those whose results it names)
    most_failed = 0.1                         # more than this share of items given up stops the chain
    each = { units = ["logmel-kmeans-50", "logmel-kmeans-100"] }           # once for each, as {units}

A step refers to steps above it; a value's default may be a reference, too. One that refers to a fanned-out step
(`each`) is fanned out with it; the manifest that such a step extends is one file, so the next names what differs, as
in {units.units}/manifest.json. Steps that read or extend the same manifest never run at once, whatever `after` says.
"""

from __future__ import annotations

import difflib
import re
import shlex
from pathlib import Path
from typing import Any, Mapping, NamedTuple, Optional, Union

from pipelines.core.errors import UsageError
from slurm import resources

MOST_FAILED = 0.1
"""Share of a step's items that may be given up before the chain stops, unless the recipe says otherwise."""
_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_KEYS = ("title", "values", "step")
_STEP_KEYS = ("name", "run", "launch", "after", "most_failed", "each")
_VALUE_KEYS = ("about", "path", "default")
_FOLDER = Path(__file__).resolve().parent.parent / "recipes"


class Value(NamedTuple):
    """Something that the user may set. `default`: None where it must be given."""

    default: Optional[str]
    about: str
    is_path: bool


class Step(NamedTuple):
    """One `[[step]]`. `after`: None where it follows the step above."""

    name: str
    words: list[str]
    launch: list[str]
    after: Optional[list[str]]
    most_failed: float
    each: dict[str, list[str]]


class Recipe(NamedTuple):
    """A recipe as it was read; nothing of it is filled in."""

    path: Path
    title: str
    values: dict[str, Value]
    steps: list[Step]

    @property
    def name(self) -> str:
        """The file's name without `.toml`."""
        return self.path.stem


def shipped() -> dict[str, Path]:
    """The recipes that come with voxarray, by name."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.toml"))}


def find(text: Union[str, Path]) -> Path:
    """The file that is meant: a path, or the name of a shipped recipe. Raises UsageError."""
    path = Path(text).expanduser()
    if path.is_file():
        return path.absolute()
    known = shipped()
    if str(text) in known:
        return known[str(text)]
    near = difflib.get_close_matches(str(text), known, 1, 0.6)
    raise UsageError(
        f"There is no recipe {str(text)!r}: no such file, and no recipe of that name among those that come with "
        f"voxarray ({', '.join(known)}). {f'Did you mean {near[0]}? ' if near else ''}`./voxarray run --list` tells "
        "what each does."
    )


def read(text: Union[str, Path]) -> Recipe:
    """Read and check a recipe. Raises UsageError, which names the place."""
    path = find(text)
    table = resources.read_toml(path)
    _known(table, _KEYS, str(path))
    steps = table.get("step", [])
    if not isinstance(steps, list) or not steps:
        raise UsageError(f"{path} has no [[step]]; a recipe is a list of them. slurm/recipes holds examples.")
    entries = table.get("values", {})
    if not isinstance(entries, dict):
        raise UsageError(f'{path}: values is a table. Write [values], and below it lines like dataset = "corpus".')
    values = {name: _value(name, entry, path) for name, entry in entries.items()}
    recipe = Recipe(path, str(table.get("title", path.stem)), values, [_step(entry, path) for entry in steps])
    names = [step.name for step in recipe.steps]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(f"{path} has several steps named {', '.join(sorted(twice))}. Give each a name of its own.")
    return recipe


def _known(table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    unknown = sorted(set(table) - set(keys))
    if unknown:
        raise UsageError(f"{where} sets {', '.join(unknown)}, which is not known. Known are {', '.join(keys)}.")


def _value(name: str, entry: Any, path: Path) -> Value:
    where = f"{path}, [values] {name}"
    if not _NAME.fullmatch(name):
        raise UsageError(f"{where}: a name is of small letters, digits, - and _, and begins with a letter.")
    if not isinstance(entry, dict):
        return Value(_text(entry, where), "", is_path=False)
    _known(entry, _VALUE_KEYS, where)
    default = entry.get("default")
    about, is_path = str(entry.get("about", "")), bool(entry.get("path", False))
    return Value(None if default is None else _text(default, where), about, is_path)


def _step(entry: Any, path: Path) -> Step:
    where = f"{path}, step {entry.get('name', '(without a name)') if isinstance(entry, dict) else entry!r}"
    if not isinstance(entry, dict):
        raise UsageError(f"{where} is not a table. Write [[step]], and its keys below.")
    _known(entry, _STEP_KEYS, where)
    name = entry.get("name", "")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(f"{where}: it needs a name of small letters, digits, - and _, that begins with a letter.")
    words = _words(entry.get("run", ""), f"{where}, run")
    if not words:
        raise UsageError(f'{where} has no command. Write one, as in run = "asr {{vad.manifest}}".')
    after = entry.get("after")
    if after is not None and (not isinstance(after, list) or not all(isinstance(one, str) for one in after)):
        raise UsageError(f'{where}: after is a list of names of steps, as in after = ["vad"].')
    share = entry.get("most_failed", MOST_FAILED)
    if not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise UsageError(f"{where}: most_failed is a share from 0 to 1, and {share!r} is not.")
    launch = _words(entry.get("launch", ""), f"{where}, launch")
    return Step(name, words, launch, after, float(share), _each(entry.get("each", {}), where))


def _each(table: Any, where: str) -> dict[str, list[str]]:
    good = isinstance(table, dict) and all(isinstance(entry, list) and entry for entry in table.values())
    if not good:
        raise UsageError(f'{where}: each is a table of lists, as in each = {{ speaker = ["ex01", "ex02"] }}.')
    chosen = {name: [_text(one, where) for one in entry] for name, entry in table.items()}
    for name, entries in chosen.items():
        if len(set(entries)) < len(entries):
            raise UsageError(f"{where}: each names a value of {name} twice.")
    return chosen


def _text(value: Any, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise UsageError(f"{where}: {value!r} is neither text nor a number.")
    return str(value)


def _words(text: Any, where: str) -> list[str]:
    """A command line as a shell would cut it, so that it can be tried by hand."""
    if isinstance(text, list):
        return [_text(one, where) for one in text]
    try:
        return shlex.split(text)
    except (ValueError, AttributeError, TypeError) as error:
        raise UsageError(f"{where}: {text!r} is not a command line ({error}).") from None
