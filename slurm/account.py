"""`./voxarray account RUN…`: what runs cost, and how much of that went into nothing."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Sequence

if TYPE_CHECKING:
    from pipelines.core.run import Run

_EPILOG = """\
RUN is a run's id (or its beginning), the stem of its outputs, its manifest, or `last`; or a chain's id: all its runs.
Where sacct answers, it says what was held and used; else heartbeats and parts do, and of memory nothing is known.
The JSON form is stable; slurm/view/account_json.py describes its fields. Exit status: 0 told; 2 usage."""


def build_parser() -> argparse.ArgumentParser:
    """The command line of `account`."""
    parser = argparse.ArgumentParser(
        prog="voxarray account",
        description="Processor and GPU hours an hour of audio; asked for against used; what was wasted; advice.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="the runs; of several, the total comes last")
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")
    return parser


def _runs(text: str) -> list[Run]:
    """The runs that are meant: one, or all of a chain. UsageError where there are none."""
    from pipelines.core.errors import UsageError
    from pipelines.core.run import Run
    from slurm import find
    from slurm.chain import state as chains

    chain = chains.find(text)
    if chain is None:
        return [find.run(text)]
    runs = [Run.open(run) for run in chains.read(chain).runs.values()]
    if not runs:
        raise UsageError(f"The chain {chain} has no runs yet, and so has cost nothing. `./voxarray status {chain}`")
    return runs


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    options = build_parser().parse_args(list(argv))
    import msgspec

    from pipelines.core.errors import DONE
    from slurm.view import account, account_json, account_text
    from slurm.view.text import Terminal

    runs = {run.id: run for text in options.runs for run in _runs(text)}
    found = [account.account(run) for run in runs.values()]
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(account_json.accounts(found)), indent=2).decode())
        return DONE
    encoding = sys.stdout.encoding or "ascii"
    for line in account_text.render(found, Terminal.of(sys.stdout)):
        print(line.encode(encoding, "replace").decode(encoding))
    return DONE
