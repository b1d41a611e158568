"""What `status` prints: once, again and again, or as JSON."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any, NamedTuple, Optional, Sequence

import msgspec

from pipelines.core import paths
from pipelines.core.errors import DONE, SOME_FAILED, StorageError, plain
from pipelines.core.plan import Plan
from pipelines.core.run import Run
from slurm import find
from slurm.chain import state as chains
from slurm.view import run_json, run_text, runs_text, watch, watch_text
from slurm.view.standing import Looker, Standing
from slurm.view.text import Terminal

LISTED = 25
"""Runs in the table, unless all are asked for."""
_ASIDE = ".until-"
"""In the name of a run that --fresh set aside."""
_LIST_EVERY_S = 10.0
"""How often a watcher of all runs lists them anew, if no run has come or gone meanwhile."""


def show(options: argparse.Namespace) -> int:
    """Do what the options of `status` ask for; returns the exit status."""
    chain = chains.find(options.run[0]) if len(options.run) == 1 else None
    if chain is not None:
        return _show_chain(chain, options)
    named = [find.run(text) for text in options.run]
    looker = Looker()
    if options.watch is not None:
        return _watch(options, named, looker)
    listed = _Listed(named) if named else _newest(every=options.all)
    for text in listed.damaged:
        print(f"voxarray: {plain(text)}", file=sys.stderr)
    views = [view for run in listed.runs if (view := _looked(looker, run, is_named=bool(named))) is not None]
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(_encoded(views, len(named), listed)), indent=2).decode())
    else:
        watch.say(_text(views, len(named), listed, every_task=options.tasks))
    return _exit_status(views) if named else DONE


def _show_chain(chain: str, options: argparse.Namespace) -> int:
    """`status CHAIN`, in all its forms."""
    from slurm.view import watch_chain

    return watch_chain.show(chain, options.watch, as_json=options.json)


class _Listed(NamedTuple):
    """Runs to be shown. `older`: how many were left out for their age; `damaged`: why runs cannot be looked at."""

    runs: Sequence[Run]
    older: int = 0
    damaged: Sequence[str] = ()

    def unread(self, views: Sequence[Standing]) -> int:
        """How many have no standing, as their files cannot be read."""
        return len(self.damaged) + len(self.runs) - len(views)


def _encoded(views: list[Standing], named: int, listed: _Listed) -> dict[str, Any]:
    """One run that was named in full; several, or all, as a list, with `unread`: how many could not be read."""
    if named == 1 and views:
        return run_json.run(views[0])
    return {**run_json.runs(views), "unread": listed.unread(views)}


def _text(views: list[Standing], named: int, listed: _Listed, *, every_task: bool) -> list[str]:
    terminal = Terminal.of(sys.stdout)
    if named == 1 and views:
        return run_text.render(views[0], terminal, every_task)
    unread = listed.unread(views)
    told = [terminal.paint(watch_text.unread(unread), "red")] if unread else []
    return told if told and not views else [*told, *runs_text.render(views, terminal, listed.older)]


def _exit_status(views: Sequence[Standing]) -> int:
    """Whether items failed, or are missing with nothing at work on them."""
    ended = [view for view in views if view.state not in ("planned", "queued", "running")]
    return SOME_FAILED if any(view.quarantined or view.left for view in ended) else DONE


def _newest(*, every: bool) -> _Listed:
    """The runs, newest first."""
    known = find.plans()[::-1]
    chosen = known if every else known[:LISTED]
    return _Listed([Run(plan) for plan in chosen], len(known) - len(chosen), _damaged(known))


def _damaged(known: Sequence[Plan]) -> list[str]:
    """Why runs have no plan that can be read; not of those that --fresh set aside."""
    names, told = {plan.run_id for plan in known}, []
    for path in sorted(paths.runs().glob("*/run.json")):
        if path.parent.name in names or _ASIDE in path.parent.name:
            continue
        try:
            msgspec.json.decode(path.read_bytes(), type=Plan)
        except (OSError, msgspec.MsgspecError) as error:
            told.append(f"The plan of a run, {path}, cannot be read ({error}).")
    return told


def _looked(looker: Looker, run: Run, *, is_named: bool) -> Optional[Standing]:
    """A run for the table; one whose files are damaged is told of and left out, if it was not asked for by name."""
    try:
        return looker.look(run)
    except (StorageError, OSError) as error:
        if is_named:
            raise
        print(f"voxarray: {plain(str(error))}", file=sys.stderr)
        return None


def _watch(options: argparse.Namespace, named: list[Run], looker: Looker) -> int:
    """Keep the view up to date: of named runs until they are over, of all runs until the reader leaves."""
    newest = _Newest(every=options.all)

    def listed() -> _Listed:
        return _Listed(named) if named else newest.listed

    views = watch.watch(
        (lambda: named) if named else newest,
        every_s=options.watch,
        over=watch.all_over if named else watch.never,
        encode=(lambda views: _encoded(views, len(named), listed())) if options.json else None,
        looker=looker,
    )
    if views and not options.json and sys.stdout.isatty():
        watch.say(_text(views, len(named), listed()._replace(older=0), every_task=options.tasks))
    if len(views) < len(named):
        return SOME_FAILED
    return _exit_status(views) if named else DONE


class _Newest:
    """The runs of the table for a watcher: listed anew when one has come or gone, else now and then."""

    def __init__(self, *, every: bool) -> None:
        self._every = every
        self.listed = _Listed([])
        self._listed, self._changed = float("-inf"), -1

    def __call__(self) -> Sequence[Run]:
        """The runs, newest first."""
        try:
            changed = paths.runs().stat().st_mtime_ns
        except OSError:
            changed = -1
        if changed != self._changed or time.monotonic() - self._listed > _LIST_EVERY_S:
            self.listed, self._changed, self._listed = _newest(every=self._every), changed, time.monotonic()
        return self.listed.runs
