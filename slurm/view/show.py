"""What `status` prints: once, again and again, or as JSON."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from typing import NamedTuple, Optional, Sequence

import msgspec

from pipelines.core.errors import DONE, SOME_FAILED, StorageError
from pipelines.core.run import Run
from slurm import find
from slurm.view import run_json, run_text, runs_text
from slurm.view.standing import Looker, Standing
from slurm.view.text import Terminal

LISTED = 25
"""Runs in the table, unless all are asked for."""
_FASTEST_S = 0.2
_OVER = ("merged", "incomplete", "cancelled", "planned")
"""States in which watching ends: nothing will change by itself."""
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
"""The terminal's second screen, without a cursor; and back."""


def show(options: argparse.Namespace) -> int:
    """Do what the options of `status` ask for; returns the exit status."""
    looker = Looker()
    if options.json:
        return _print_json(options, looker)
    if options.watch is not None:
        if sys.stdout.isatty():
            return _watch(options, looker)
        print(
            "The output is no terminal that could be kept up to date, so this is how it stands now.", file=sys.stderr
        )
    shown = _look(options, looker)
    _print(shown.lines)
    return shown.status


class _Shown(NamedTuple):
    """What the command shows at one moment, its exit status, and whether there is nothing more to wait for."""

    lines: list[str]
    status: int
    over: bool


def _print(lines: Sequence[str]) -> None:
    """Print, with what the terminal's encoding lacks replaced."""
    encoding = sys.stdout.encoding or "ascii"
    for line in lines:
        print(line.encode(encoding, "replace").decode(encoding))


def _look(options: argparse.Namespace, looker: Looker) -> _Shown:
    terminal = Terminal.of(sys.stdout)
    if options.run is None:
        views, more = _views(looker, options.all)
        return _Shown(runs_text.render(views, terminal, more), DONE, False)
    view = looker.look(find.run(options.run))
    return _Shown(run_text.render(view, terminal, options.tasks), _exit_status(view), view.state in _OVER)


def _exit_status(view: Standing) -> int:
    if view.state in ("planned", "queued", "running"):
        return DONE
    return SOME_FAILED if view.quarantined or view.left else DONE


def _views(looker: Looker, every: bool) -> tuple[list[Standing], int]:
    """The runs, newest first, and how many older ones were left out."""
    known = find.plans()[::-1]
    chosen = known if every else known[:LISTED]
    return [view for plan in chosen if (view := _looked(looker, Run(plan))) is not None], len(known) - len(chosen)


def _looked(looker: Looker, run: Run) -> Optional[Standing]:
    """A run for the table; one whose files are damaged is told of and left out."""
    try:
        return looker.look(run)
    except StorageError as error:
        print(f"voxarray: {error}", file=sys.stderr)
        return None


def _print_json(options: argparse.Namespace, looker: Looker) -> int:
    status = DONE
    if options.run is None:
        value = run_json.runs(_views(looker, options.all)[0])
    else:
        view = looker.look(find.run(options.run))
        value, status = run_json.run(view), _exit_status(view)
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
    return status


def _watch(options: argparse.Namespace, looker: Looker) -> int:
    """Keep the screen up to date until the run is over or the user leaves (Ctrl-C)."""
    shown = _look(options, looker)
    sys.stdout.write(_ENTER)
    try:
        while not shown.over:
            _draw(shown.lines, shutil.get_terminal_size().lines or 24, options.watch)
            time.sleep(max(_FASTEST_S, options.watch))
            shown = _look(options, looker)
    except KeyboardInterrupt:
        pass
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
    _print(shown.lines)
    return shown.status


def _draw(lines: Sequence[str], rows: int, every_s: float) -> None:
    """Rewrite the screen in place: no flicker, nothing scrolls."""
    shown = list(lines[: rows - 2])
    hidden = len(lines) - len(shown)
    more = f"{hidden} lines more than the screen holds; " if hidden else ""
    shown.append(f"({more}every {every_s:g} s; Ctrl-C leaves, the run goes on)")
    sys.stdout.write("\x1b[H" + "\n".join(f"{line}\x1b[K" for line in shown) + "\x1b[J")
    sys.stdout.flush()
