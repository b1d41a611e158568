"""What `status` prints: once, again and again, or as JSON."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any, Optional, Sequence

import msgspec

from pipelines.core import paths
from pipelines.core.errors import DONE, SOME_FAILED, StorageError
from pipelines.core.run import Run
from slurm import find
from slurm.chain import state as chains
from slurm.view import run_json, run_text, runs_text, watch
from slurm.view.standing import Looker, Standing
from slurm.view.text import Terminal

LISTED = 25
"""Runs in the table, unless all are asked for."""
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
    runs, more = (named, 0) if named else _newest(every=options.all)
    views = [view for run in runs if (view := _looked(looker, run, is_named=bool(named))) is not None]
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(_encoded(views, len(named))), indent=2).decode())
    else:
        watch.say(_text(views, len(named), more, every_task=options.tasks))
    return _exit_status(views) if named else DONE


def _show_chain(chain: str, options: argparse.Namespace) -> int:
    """`status CHAIN`, in all its forms."""
    from slurm.view import watch_chain

    return watch_chain.show(chain, options.watch, as_json=options.json)


def _encoded(views: list[Standing], named: int) -> dict[str, Any]:
    """One run that was named in full; several, or all, as a list."""
    return run_json.run(views[0]) if named == 1 and views else run_json.runs(views)


def _text(views: list[Standing], named: int, more: int, *, every_task: bool) -> list[str]:
    terminal = Terminal.of(sys.stdout)
    if named == 1 and views:
        return run_text.render(views[0], terminal, every_task)
    return runs_text.render(views, terminal, more)


def _exit_status(views: Sequence[Standing]) -> int:
    """Whether items failed, or are missing with nothing at work on them."""
    ended = [view for view in views if view.state not in ("planned", "queued", "running")]
    return SOME_FAILED if any(view.quarantined or view.left for view in ended) else DONE


def _newest(*, every: bool) -> tuple[list[Run], int]:
    """The runs, newest first, and how many older ones were left out."""
    known = find.plans()[::-1]
    chosen = known if every else known[:LISTED]
    return [Run(plan) for plan in chosen], len(known) - len(chosen)


def _looked(looker: Looker, run: Run, *, is_named: bool) -> Optional[Standing]:
    """A run for the table; one whose files are damaged is told of and left out, if it was not asked for by name."""
    try:
        return looker.look(run)
    except StorageError as error:
        if is_named:
            raise
        print(f"voxarray: {error}", file=sys.stderr)
        return None


def _watch(options: argparse.Namespace, named: list[Run], looker: Looker) -> int:
    """Keep the view up to date: of named runs until they are over, of all runs until the reader leaves."""
    views = watch.watch(
        (lambda: named) if named else _Newest(every=options.all),
        every_s=options.watch,
        over=watch.all_over if named else watch.never,
        encode=(lambda views: _encoded(views, len(named))) if options.json else None,
        looker=looker,
    )
    if views and not options.json and sys.stdout.isatty():
        watch.say(_text(views, len(named), 0, every_task=options.tasks))
    if len(views) < len(named):
        return SOME_FAILED
    return _exit_status(views) if named else DONE


class _Newest:
    """The runs of the table for a watcher: listed anew when one has come or gone, else now and then."""

    def __init__(self, *, every: bool) -> None:
        self._every = every
        self._runs: list[Run] = []
        self._listed, self._changed = float("-inf"), -1

    def __call__(self) -> list[Run]:
        """The runs, newest first."""
        try:
            changed = paths.runs().stat().st_mtime_ns
        except OSError:
            changed = -1
        if changed != self._changed or time.monotonic() - self._listed > _LIST_EVERY_S:
            self._runs, self._changed, self._listed = _newest(every=self._every)[0], changed, time.monotonic()
        return self._runs
