"""What can be known of a chain's links before anything runs: command lines, what they ask for, environments."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
from pathlib import Path
from typing import Any, Iterator, Sequence

from pipelines.core import paths, registry
from pipelines.core.errors import UsageError
from slurm import flags, profile, resources
from slurm.chain import plan
from slurm.chain.plan import Link
from slurm.chain.state import Order
from slurm.request import Request
from slurm.resources import Description


@contextlib.contextmanager
def at_home() -> Iterator[None]:
    """Relative paths of a recipe are relative to the user's data, wherever a command or a job runs."""
    before = Path.cwd()
    paths.home().mkdir(parents=True, exist_ok=True)  # nothing may have been made there yet
    os.chdir(paths.home())
    try:
        yield
    finally:
        os.chdir(before)


def parsed(link: Link, arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a link's command. UsageError where it refuses its command line."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            if link.is_tool:
                module = importlib.import_module(plan.TOOLS[link.words[0]])
                tools: argparse.ArgumentParser = module.build_parser()
                return tools.parse_args(arguments)
            description = resources.describe(registry.folders()[link.words[0]])
            return flags.pipeline_parser(registry.find(link.words[0]), description).parse(arguments)
    except SystemExit:
        raise UsageError(f"Step {link.name} has a command line that is refused. {said.getvalue().strip()}") from None


class _LaterError(Exception):
    """An option is not known before another link has come to its end."""


class _Known(argparse.Namespace):
    """Options that can be asked for as long as they do not name another link's result."""

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if isinstance(value, str) and any(plan.references([value])):
            raise _LaterError
        return value


def foresee(link: Link, shared: Sequence[str]) -> None:
    """Raise UsageError where a link cannot be done, whatever the links before it will leave.

    `shared`: launch flags of all links.
    """
    if link.is_tool:
        parsed(link, link.words[1:])
        return
    options = parsed(link, [*link.words[1:], *link.launch, *shared])
    pipeline = registry.find(link.words[0])
    with at_home():
        try:
            asked(link, shared)
            if pipeline.foresee is not None:
                with contextlib.suppress(_LaterError):
                    pipeline.foresee(_Known(**vars(options)))
        except UsageError as error:
            raise UsageError(f"Step {link.name} cannot be done. {error}") from None


def asked(link: Link, shared: Sequence[str]) -> tuple[Description, Request]:
    """What a link asks for, whatever it will find. Raises UsageError."""
    description = resources.describe(registry.folders()[link.words[0]])
    parser = flags.Parser(prog=f"voxarray {link.words[0]}")
    flags.add_launch(parser, description)
    options, _ = parser.parse_known_args([*link.launch, *shared])
    _, settings = profile.resolved(description, options)
    for name in ("limit", "tasks"):
        value = settings[name].value if name in settings else getattr(options, name, None)
        if value is not None:
            resources.positive(f"--{name}", value)
    return description, Request.of(settings)


def environments_of(order: Order) -> list[str]:
    """The environments that a chain's pipelines need, each once."""
    names: dict[str, None] = {}
    for link in order.links:
        if not link.is_tool:
            description = resources.describe(registry.folders()[link.words[0]])
            names[description.environment_for(vars(parsed(link, [*link.words[1:], *link.launch])))] = None
    return list(names)
