"""`./voxarray report RUN`: one self-contained HTML page about a run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

from pipelines.core import clock

_EPILOG = """\
The page needs nothing else and asks nothing of the network: it can be mailed, printed and kept. It may be made at any
time, also while the run is at work. Exit status: 0 written; 1 it could not be; 2 usage."""
_EVERY_S = 0.5


def build_parser() -> argparse.ArgumentParser:
    """The command line of `report`."""
    parser = argparse.ArgumentParser(
        prog="voxarray report",
        description="Writes one HTML page with plots: the proof, the course, speeds, what came out, what failed.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "run",
        metavar="RUN",
        help="a run's id (or its beginning), its outputs' stem, manifest, `last`; or a chain's id",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="where to (default: report.html in the folder of the run or chain)"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    options = build_parser().parse_args(list(argv))
    from pipelines.core import store
    from pipelines.core.errors import DONE
    from slurm import find
    from slurm.chain import state as chains
    from slurm.view import page, report_data

    chain = chains.find(options.run)
    if chain is not None:
        return _of_chain(chain, options.output)
    run = find.run(options.run)
    path = Path(options.output).expanduser() if options.output else run.folder / "report.html"
    if path.is_dir():
        path /= f"{run.id}.html"
    with _Counter() as counter:
        report = report_data.gather(run, counter)
    store.replace(path, page.page(report).encode())
    print(path)
    return DONE


def _of_chain(chain: str, output: Optional[str]) -> int:
    from pipelines.core.errors import DONE
    from slurm.chain import state as chains

    path = Path(output).expanduser() if output else chains.folder(chain) / "report.html"
    print(write_chain(chain, path / f"{chain}.html" if path.is_dir() else path))
    return DONE


def write_chain(chain: str, path: Path) -> Path:
    """Write the page of a chain, with a few items to listen to; returns its path."""
    from pipelines.core import store
    from slurm.view import chain_page

    store.replace(path, chain_page.page(chain_page.gather(chain)).encode())
    return path


class _Counter:
    """Shows how many rows have been read, on a terminal."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown = clock.now()

    def __enter__(self) -> _Counter:  # noqa: PYI034 - `Self` is not in Python 3.9
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal:
            sys.stderr.write("\r\x1b[K")

    def __call__(self, rows: int, total: int) -> None:
        if self._terminal and clock.now() - self._shown > _EVERY_S:
            self._shown = clock.now()
            sys.stderr.write(f"\r\x1b[K{rows:,} of {total:,} rows read")
            sys.stderr.flush()
