"""`./voxarray wer MANIFEST`: word and character error rates of a manifest's transcripts, and where they are worst.

A manifest of any length is streamed; what is kept are sums, for each group, and the worst items.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

import msgspec

from pipelines.asr import scoring
from pipelines.asr.scoring import Columns, Scored
from pipelines.asr.tables import text_of
from pipelines.asr.tally import Report, Sums
from pipelines.core import manifest
from pipelines.core.errors import DONE, LISTED, ManifestError, UsageError, VoxarrayError, listed

USUAL = (("text_reference", "text"), ("reference", "text"), ("text", "pred_text"), ("text", "pred"))
"""Pairs of reference and hypothesis that are looked for where none are named; the last are NeMo's."""
_CHUNK = 500
_PARALLEL_BYTES = 4 << 20
_LOOK_AT = 1000


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    options = build_parser().parse_args(arguments)
    try:
        report = measure(
            Path(options.manifest),
            options.reference,
            options.hypothesis,
            tuple(options.by),
            options.language,
            options.worst,
        )
    except VoxarrayError as error:
        print(f"voxarray: {error}", file=sys.stderr)
        return error.exit_status
    try:
        print(report.to_json().decode() if options.json else text_of(report), flush=True)
    except BrokenPipeError:  # `voxarray wer … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="voxarray wer",
        allow_abbrev=False,
        description="Word and character error rates of a manifest's transcripts, raw and as Whisper's normalisers "
        "(by language) leave them; by duration and by any field; the items with most errors.",
    )
    parser.add_argument("manifest", metavar="MANIFEST", help="a manifest (JSONL) with references and transcripts")
    pairs = ", ".join("/".join(pair) for pair in USUAL)
    parser.add_argument("--reference", metavar="FIELD", help=f"what was said (found if it is one of {pairs})")
    parser.add_argument("--hypothesis", metavar="FIELD", help="what was recognised")
    parser.add_argument(
        "--by",
        metavar="FIELD",
        action="append",
        default=[],
        help="count each value of a field apart, too (repeatable)",
    )
    parser.add_argument(
        "--language", default="en", help="of rows that do not name theirs (language, lang, …); default: en"
    )
    parser.add_argument("--worst", metavar="N", type=int, default=LISTED, help="items to show (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="all of it as one JSON object")
    return parser


def measure(  # noqa: PLR0917 - the options of the command
    path: Path,
    reference: Optional[str] = None,
    hypothesis: Optional[str] = None,
    by: tuple[str, ...] = (),
    language: str = "en",
    worst: int = LISTED,
    workers: Optional[int] = None,
) -> Report:
    """Read a manifest and count. Raises ManifestError, UsageError for fields that are not there, EnvironmentNotFit."""
    scoring.verify()
    columns = _columns(path, reference, hypothesis, by, language)
    sums = Sums(path, columns, worst)
    for row in _scored(path, columns, workers):
        sums.add(row)
    return sums.report()


# -- fields


def _columns(
    path: Path, reference: Optional[str], hypothesis: Optional[str], by: tuple[str, ...], language: str
) -> Columns:
    """The fields to use, looked up in the manifest's first rows. Raises UsageError where they cannot be found."""
    fields: set[str] = set()
    for row in itertools.islice(manifest.lines(path), _LOOK_AT):
        fields |= set(_decoded(path, row))
    if not fields:
        raise UsageError(f"The manifest {path} is empty: there is nothing to count.")
    given = [(reference, "reference"), (hypothesis, "hypothesis"), *((name, "by") for name in by)]
    for name, option in given:
        if name is not None and name not in fields:
            raise _lacking(path, name, option, fields)
    if reference is not None and reference == hypothesis:
        raise UsageError(f"--reference and --hypothesis are both {reference}: a text has no errors against itself.")
    for pair in USUAL:
        first, second = reference or pair[0], hypothesis or pair[1]
        if first != second and {first, second} <= fields:
            return Columns(first, second, by, language)
    have = listed(sorted(fields), len(fields))
    raise UsageError(
        f"The manifest {path} does not show which fields hold what was said and what was recognised: its rows have "
        f"{have}. Name both, for example `--reference text_reference --hypothesis text`. (`./voxarray asr` adds "
        "`text`; a manifest that has its references there needs them under another name first.)"
    )


def _lacking(path: Path, name: str, option: str, fields: set[str]) -> UsageError:
    have = listed(sorted(fields), len(fields))
    hint = " `./voxarray asr` adds the field `text`." if option == "hypothesis" else ""
    return UsageError(
        f"No row among the first {_LOOK_AT:,} of {path} has the field {name!r} (--{option}). They have {have}.{hint}"
    )


def _decoded(path: Path, row: bytes) -> dict[str, Any]:
    try:
        value: dict[str, Any] = msgspec.json.decode(row, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise ManifestError(f"A row of the manifest {path} cannot be read: {error}.") from None
    return value


# -- rows, several processes at once


def _scored(path: Path, columns: Columns, workers: Optional[int]) -> Iterator[Scored]:
    """The rows of a manifest in order, scored by as many processes as there are cores where that is worth it."""
    chunks = _chunks(path)
    if workers is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = min(16, cores) if path.stat().st_size > _PARALLEL_BYTES else 1
    if workers < 2:
        for rows in chunks:
            yield from _score(path, rows, columns)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting: deque[Future[list[Scored]]] = deque()
        for rows in chunks:
            waiting.append(pool.submit(_score, path, rows, columns))
            if len(waiting) > 2 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _score(path: Path, rows: list[bytes], columns: Columns) -> list[Scored]:
    try:
        return scoring.score(rows, columns)
    except msgspec.MsgspecError as error:
        raise ManifestError(f"A row of the manifest {path} cannot be read: {error}.") from None


def _chunks(path: Path) -> Iterator[list[bytes]]:
    lines = manifest.lines(path)
    while rows := list(itertools.islice(lines, _CHUNK)):
        yield rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
