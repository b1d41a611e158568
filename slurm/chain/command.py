"""`./voxarray run RECIPE NAME=VALUE …`: make the chain, and take it up."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Mapping, Sequence, Union

from pipelines.core import clock, lock, logs, paths, store
from pipelines.core.errors import DONE as ALL_DONE
from pipelines.core.errors import UsageError
from slurm import environments, flags, launch
from slurm.chain import beforehand, conductor, following, plan, recipe, state
from slurm.chain.state import FORMAT, Order, State

_BEGUN_S = 30.0
_SHARED = ("profile", "partition", "account", "qos", "constraint", "tasks", "max_parallel", "limit")


def main(arguments: Sequence[str]) -> int:
    """The command; returns the exit status."""
    options = _parser().parse(arguments)
    if options.list:
        print(listing())
        return ALL_DONE
    if options.recipe is None:
        raise UsageError(
            "voxarray run needs a RECIPE: a TOML file, or a name of those that `voxarray run --list` shows."
        )
    order = make(options.recipe, _pairs(options.value), options)
    if options.dry_run:
        from slurm.chain import dry

        print(dry.explain(order))
        return ALL_DONE
    logs.to_stream(sys.stderr, plain=True)
    return take_up(order, options)


def _parser() -> flags.Parser:
    parser = flags.Parser(
        prog="voxarray run",
        description="Run a recipe: several pipelines, each when the one before is merged and proven. On Slurm it goes "
        "on by itself; the same command again does only what is missing anywhere in the chain.",
    )
    parser.add_argument("recipe", metavar="RECIPE", nargs="?", help="a TOML file, or the name of a shipped recipe")
    parser.add_argument("value", metavar="NAME=VALUE", nargs="*", help="values of the recipe")
    parser.add_argument("--list", action="store_true", help="the shipped recipes, and their values")
    where = parser.add_argument_group("where its steps run (what a recipe's step says of itself gives way to these)")
    flags.add_cluster(where)
    where.add_argument("--tasks", metavar="N", help="tasks of each step")
    where.add_argument("--max-parallel", metavar="N", help="at most so many tasks of a step at a time")
    where.add_argument("--limit", metavar="N", help=argparse.SUPPRESS)
    doing = parser.add_argument_group("the chain")
    doing.add_argument("--dry-run", action="store_true", help="show the steps with what each asks for; change nothing")
    doing.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="show progress until the chain has ended, which else goes on by itself (default: only on this machine)",
    )
    return parser


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE … as a mapping."""
    for text in texts:
        if "=" not in text:
            raise UsageError(f"{text!r} is not NAME=VALUE. Values of a recipe are given like recordings=/data/calls.")
    return dict(text.split("=", 1) for text in texts)


def run(source: Union[str, Path], values: Mapping[str, str], **options: Any) -> State:
    """The Python call; see `slurm.chain.run`."""
    chosen = _parser().parse([str(source)])
    for name, value in options.items():
        if not hasattr(chosen, name) or name in ("recipe", "value", "list", "dry_run"):
            raise TypeError(f"run() takes no {name!r}; it takes {', '.join(('cluster', *_SHARED, 'wait'))}")
        setattr(chosen, name, value if value is None or isinstance(value, bool) else str(value))
    if chosen.cluster not in flags.CLUSTERS:
        raise UsageError(f"There is no cluster {chosen.cluster!r}: it is one of {', '.join(flags.CLUSTERS)}.")
    order = make(source, {name: str(value) for name, value in values.items()}, chosen)
    take_up(order, chosen)
    return state.read(order.id)


def make(source: Union[str, Path], values: Mapping[str, str], options: argparse.Namespace) -> Order:
    """The chain that a command line means; nothing is written. Raises UsageError."""
    read = recipe.read(source)
    chosen = plan.values(read, values)
    links = plan.links(read, chosen)
    asked = {name: getattr(options, name) for name in _SHARED}
    shared = [f"--{name.replace('_', '-')}={value}" for name, value in asked.items() if value is not None]
    for link in links:  # now, and not when the steps before it have taken their hours
        beforehand.foresee(link, shared)
    return Order(
        format=FORMAT,
        id=f"{read.name}-{plan.digest(read, links)}",
        title=read.title,
        recipe=str(read.path),
        values=chosen,
        links=links,
        flags=shared,
        where=launch.choose_cluster(options.cluster),
        created=clock.iso(),
    )


def take_up(order: Order, options: argparse.Namespace) -> int:
    """Write the chain down, do what can be done now, and follow it where that was asked for; the exit status."""
    busy = following.conductor_here(order.id)
    if busy is not None:
        launch.say(f"{order.id} is at work already, in process {busy}. {_look(order)}")
        return following.follow_here(order.id, busy) if options.wait else ALL_DONE
    if order.where == "slurm":  # now, where there is a network, and not on a compute node hours later
        for name in beforehand.environments_of(order):
            if not environments.is_ready(name):
                launch.say(f"Environment {name} is not there yet, or its lock has changed; making it.")
                environments.ensure(name)
    if not (state.folder(order.id) / "state.json").exists():  # whoever finds a chain finds how it stands
        state.write(state.fresh(order, None))
    state.write_order(order)
    state.cancelled_path(order.id).unlink(missing_ok=True)
    store.replace(state.folder(order.id) / "recipe.toml", Path(order.recipe).read_bytes())
    wait = options.wait if options.wait is not None else order.where != "slurm"
    if order.where != "slurm" and not wait:
        return _detached(order)
    whole = conductor.advance(order.id, conducting=False, again=True)
    if order.where == "slurm" and whole.state == state.RUNNING:
        if wait:
            return following.follow_there(order.id)
        launch.say(f"The chain {order.id} goes on by itself: a job waits for each step's merge. {_look(order)}")
        return ALL_DONE
    return following.conclude(order, whole)


def _detached(order: Order) -> int:
    """Conduct on this machine in a process of its own, which outlives the terminal."""
    held = state.folder(order.id) / "chain.lock"
    with lock.tried(held) as free:
        if not free and lock.is_held(held):
            launch.say(f"{order.id} is at work already: {lock.owner(held)}. {_look(order)}")
            return ALL_DONE
        state.write(conductor.taken_up(order, again=True))
    log = state.folder(order.id) / "chain.log"
    environment = {**os.environ, "PYTHONPATH": str(paths.repository()), "VOXARRAY_HOME": str(paths.home())}
    command = [str(environments.python("launcher")), "-m", "slurm.chain.conductor", order.id]
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    until = time.monotonic() + _BEGUN_S
    while process.poll() is None and state.read(order.id).pid is None and time.monotonic() < until:
        time.sleep(0.05)  # until then, it would look lost
    launch.say(
        f"The chain {order.id} goes on by itself (process {process.pid} on {socket.gethostname()}; its log is {log}). "
        f"{_look(order)}"
    )
    return ALL_DONE


def _look(order: Order) -> str:
    return f"`./voxarray status {order.id}` shows how far it is."


def listing() -> str:
    """The shipped recipes for people."""
    lines = []
    width = shutil.get_terminal_size().columns
    for path in recipe.shipped().values():
        read = recipe.read(path)
        lines += [f"{read.name}: {read.title}", f"  steps: {' → '.join(step.name for step in read.steps)}"]
        for name, value in read.values.items():
            default = "" if value.default is None else f"[{value.default}]"
            lines.append(f"  {name + '=' + default:32} {value.about}"[:width].rstrip())
        lines.append("")
    lines.append("A recipe of your own is a file like those in slurm/recipes: copy one, and give its path.")
    return "\n".join(lines)
