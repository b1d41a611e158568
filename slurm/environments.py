"""`./voxarray env`, and what the launch asks about environments: where, ready or not, make it so.

Standard library only: part of it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import List, Optional, Sequence

from pipelines.core.errors import DONE, NOT_FIT, UsageError, VoxarrayError
from slurm.envs import build, places, sources
from slurm.envs.check import check
from slurm.envs.definition import Definition, find, names

_EPILOG = f"""\
An environment is made with micromamba, mamba or conda where one is present ({build.TOOL_VARIABLE}=uv: leave it alone),
else with uv and a Python of this machine, and filled from envs/NAME.lock by uv in both cases. It lies in envs/.prefix,
or in the user's cache where the repository cannot be written to; {places.VARIABLE} names another folder. pip's
configuration (index, find-links, certificate) is followed."""


def prefix(name: str) -> Path:
    """The folder of environment `name`: where it is ready, else where it would be made. UsageError: no such name."""
    return places.prefix(find(name))


def python(name: str) -> Path:
    """The interpreter of environment `name`, whether made yet or not."""
    return places.python(prefix(name))


def is_ready(name: str) -> bool:
    """Whether environment `name` is complete and made from its present lock."""
    definition = find(name)
    return places.is_current(places.prefix(definition), definition)


def lock_digest(name: str) -> Optional[str]:
    """SHA-256 of envs/NAME.lock, as each run's plan records it; None where the environment has no lock."""
    return find(name).digest()


def ensure(name: str) -> Path:
    """The folder of environment `name`, made or brought up to date first if need be. Raises EnvironmentNotFit."""
    return build.create(find(name))


def main(argv: Sequence[str]) -> int:
    """`env list|create|check|lock NAME…`; returns the exit status."""
    options = _parser().parse_args(list(argv))
    try:
        return int(options.act(options))
    except VoxarrayError as error:
        places.say(str(error))
        return error.exit_status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="voxarray env",
        description="The environments of the pipelines.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(act=_list, names=[])
    actions = parser.add_subparsers(title="actions", metavar="list | create | check | lock")
    for action, act, text in (
        ("list", _list, "which there are, and which are ready (the default)"),
        ("create", _create, "make them, or bring them up to their locks"),
        ("check", _check, "import what they are for, and tell the versions"),
        ("lock", _lock, "pin envs/NAME.txt anew into envs/NAME.lock (for developers)"),
    ):
        sub = actions.add_parser(action, help=text, description=f"{action}: {text}")
        sub.add_argument("names", nargs="*", metavar="NAME", help="environments; all of them when none is named")
        sub.set_defaults(act=act)
        if action == "lock":
            sub.add_argument("--upgrade", action="store_true", help="take the newest versions, not those locked now")
    return parser


def _chosen(options: argparse.Namespace) -> List[Definition]:
    """The environments that were named; none: those defined, and those made for one Python version (`engine-3.9`)."""
    made = [name for name in places.made() if name not in names() and "-3." in name]
    return [find(name) for name in options.names or sorted({*names(), *made})]


def _list(options: argparse.Namespace) -> int:
    for definition in _chosen(options):
        folder = places.prefix(definition)
        stamp = places.read_stamp(folder)
        if places.is_current(folder, definition):
            state = f"ready, Python {stamp['python']}, by {stamp['tool']}"
            state += f", torch {stamp['torch']}" if "torch" in stamp else ""
            state += f", without {stamp['lacking']}" if "lacking" in stamp else ""
        else:
            state = "out of date" if stamp else "not made"
        print(f"{definition.name:12} {state:36} {folder}")
    return DONE


def _create(options: argparse.Namespace) -> int:
    if not options.names:
        raise UsageError(f"`env create` makes the environments that it is told to: {', '.join(names())}.")
    for definition in _chosen(options):
        was_ready = places.is_current(places.prefix(definition), definition)
        prefix = build.create(definition)
        if was_ready:
            sources.add_lacking(definition, prefix)
        print(f"{definition.name:12} {prefix}")
    return DONE


def _check(options: argparse.Namespace) -> int:
    status = DONE
    for definition in _chosen(options):
        if not options.names and not places.read_stamp(places.prefix(definition)):
            print(f"{definition.name:12} not made")
            continue
        report = check(definition)
        for package, version in report.versions.items():
            print(f"{definition.name:12} {package} {version}")
        stamp = places.read_stamp(places.prefix(definition))
        for key, text in (("git", "from git"), ("lacking", "without, for git did not reach it:")):
            if key in stamp:
                print(f"{definition.name:12} {text} {stamp[key]}")
        for failure in report.failures:
            print(f"{definition.name:12} NOT FIT: {failure}")
            status = NOT_FIT
        if report.is_fit:
            print(f"{definition.name:12} fit")
    return status


def _lock(options: argparse.Namespace) -> int:
    from slurm.envs import locking

    for definition in map(find, options.names or names()):
        if definition.name != definition.base:
            raise UsageError(f"{definition.name} shares its lock: `./voxarray env lock {definition.base}`.")
        for path in locking.lock(definition, upgrade=options.upgrade):
            print(f"{definition.name:12} {path}")
    return DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
