"""`./voxarray status`: how runs stand, from any shell, while they run and afterwards. Files are all it needs."""

from __future__ import annotations

import argparse
from typing import Sequence

_WATCH_S = 2.0
_EPILOG = """\
RUN is a run's id (or its beginning), the stem of its outputs, its manifest, or `last`. Without RUN, all runs are
listed, newest first.
A task is marked slow below half the median speed of its launch, silent after three missed heartbeats.
The JSON form is stable; slurm/view/run_json.py describes its fields.
Exit status: 0 all done, running or waiting; 1 items failed, or are missing with nothing at work on them; 2 usage."""


def build_parser() -> argparse.ArgumentParser:
    """The command line of `status`."""
    parser = argparse.ArgumentParser(
        prog="voxarray status",
        description="How far a run is: tasks, speed, time left, failures by cause, what to type next.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", nargs="?", help="the run; without it, a table of all runs")
    parser.add_argument(
        "--watch", metavar="SECONDS", nargs="?", type=float, const=_WATCH_S, help="show it again and again (every 2 s)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")
    parser.add_argument("--tasks", action="store_true", help="every task, however many there are")
    parser.add_argument("--all", action="store_true", help="every run, not the latest alone")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    options = build_parser().parse_args(list(argv))
    from slurm.view.show import show

    return show(options)
