"""`./voxarray status`: how runs stand, from any shell, while they run and afterwards. Files are all it needs."""

from __future__ import annotations

import argparse
from typing import Sequence

from slurm import flags

_WATCH_S = 2.0
_EPILOG = """\
RUN is a run's id (or its beginning), the stem of its outputs, its manifest, or `last`. Without RUN, all runs are
listed, newest first; several RUNs are listed alike. A chain's id (see `run`) shows its steps.
--watch fills the screen and redraws it in place: a line and a bar a run, and the tasks and failures of one of them
(up and down choose it). q or Ctrl-C leaves; nothing that runs is touched. It ends by itself once every RUN named is
over. Where the screen cannot be redrawn, each change is a line; with --json, each look is one line of JSON.
A task is marked slow below half the median speed of its launch, silent after three missed heartbeats.
The JSON form is stable; slurm/view/run_json.py describes its fields.
Exit status: 0 all done, running or waiting; 1 items failed, or are missing with nothing at work on them; 2 usage."""


def build_parser() -> flags.Parser:
    """The command line of `status`."""
    parser = flags.Parser(
        prog="voxarray status",
        description="How far a run is: tasks, speed, time left, failures by cause, what to type next.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", nargs="*", help="the runs, or one chain; without any, a table of all")
    parser.add_argument(
        "--watch", metavar="SECONDS", nargs="?", type=float, const=_WATCH_S, help="keep it in view (every 2 s)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs; watched: one a line")
    parser.add_argument("--tasks", action="store_true", help="every task, however many there are")
    parser.add_argument("--all", action="store_true", help="every run, not the latest alone")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    options = build_parser().parse(_with_interval(argv))
    from slurm.view.show import show

    return show(options)


def _with_interval(argv: Sequence[str]) -> list[str]:
    """`--watch RUN` means the usual interval, and the run: argparse would take the run's name for the seconds."""
    words = list(argv)
    for place, word in enumerate(words):
        following = words[place + 1] if place + 1 < len(words) else ""
        if word == "--watch" and not _is_number(following):
            words[place] = f"--watch={_WATCH_S:g}"
    return words


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
