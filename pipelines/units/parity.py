"""`voxarray parity encode MANIFEST --units NAME`: the same recordings through both backends, unit by unit.

Each backend runs in its own environment, as `python -m pipelines.units.parity --side native | textless`. Two programs
that compute the same features in another order differ in the last digits, and a frame that lies between two centroids
may then fall to either: such a near tie is told from a fault by how far its two centroids are from it.
"""

from __future__ import annotations

import argparse
import base64
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Iterator, Optional, Sequence

import msgspec

from pipelines.core import paths
from pipelines.core.errors import DONE, SOME_FAILED, UsageError, VoxarrayError
from pipelines.core.manifest import Item, items
from pipelines.core.pipeline import Parameters
from pipelines.units import options as units_options

NEAR_TIE = 1e-3
"""Two centroids are near a tie if their distances to a frame differ by no more than this share."""
_LEAST, _ITEMS, _WORST = 0.999, 50, 10
_RATE = 16_000


class Encoded(msgspec.Struct, frozen=True):
    """What the native side found for an item: its units (uint16, base64), or why there are none."""

    index: int
    units: str = ""
    error: Optional[str] = None


class Compared(msgspec.Struct, frozen=True):
    """One item of both: frames of the longer, those that differ, those of them near a tie, seconds of audio."""

    path: str
    frames: int = 0
    unequal: int = 0
    ties: int = 0
    seconds: float = 0.0
    lengths: Optional[list[int]] = None
    """Frames of each side, where they are not as many."""
    error: Optional[str] = None


def main(argv: Sequence[str]) -> int:
    """Compare and print; 0 where enough units are equal, 1 where not, 2 for usage, 3 where an environment is unfit."""
    options = _parser().parse_args(list(argv))
    try:
        return _side(options) if options.side else _compare(options)
    except VoxarrayError as error:
        print(f"voxarray: {error}", file=sys.stderr)
        return error.exit_status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="voxarray parity",
        description="Encode some recordings with both backends, native and fairseq's as textlesslib calls it, and "
        "count the units that differ.",
    )
    parser.add_argument("pipeline", choices=("encode",), help="what is compared")
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="JSONL manifest of recordings")
    parser.add_argument("--units", required=True, metavar="NAME", help="a codebook of HuBERT features")
    parser.add_argument(
        "--items",
        type=int,
        default=_ITEMS,
        metavar="N",
        help=f"recordings, spread over the manifest (default: {_ITEMS})",
    )
    parser.add_argument(
        "--least", type=float, default=_LEAST, metavar="SHARE", help=f"units that must be equal (default: {_LEAST})"
    )
    for name in ("--native-python", "--reference-python", "--side", "--work"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    return parser


# -- the command


def _compare(options: argparse.Namespace) -> int:
    if not (options.native_python and options.reference_python):
        raise UsageError(
            "The Python of each environment is needed: `./voxarray parity …` finds both (--native-python, "
            "--reference-python)."
        )
    if options.items < 1 or not 0 <= options.least <= 1:
        raise UsageError("--items is at least 1, and --least a share from 0 to 1.")
    manifest = options.manifest.expanduser().absolute()
    if not manifest.is_file():
        raise UsageError(f"There is no manifest {manifest}. `./voxarray vad AUDIO_DIR` writes one.")
    parameters = _parameters(options.units)
    chosen = list(_spread(manifest, options.items))
    if not chosen:
        raise UsageError(f"{manifest} has no items to compare.")
    with tempfile.TemporaryDirectory(prefix="voxarray-parity-") as name:
        work = Path(name)
        (work / "parameters.json").write_bytes(msgspec.json.encode(parameters))
        (work / "rows.jsonl").write_bytes(b"".join(item.row.rstrip(b"\n") + b"\n" for item in chosen))
        for side, python in (("native", options.native_python), ("textless", options.reference_python)):
            status = _run(python, side, options, work)
            if status:
                return status
        return _report(_read(work / "compared.jsonl", Compared), options.least)


def _parameters(name: str) -> Parameters:
    if units_options.embedded_clusters(name) is not None:
        raise UsageError(
            f"{name} are units of log-mel features, which textlesslib does not have. Name HuBERT's units."
        )
    chosen = units_options.of_units(name)
    if chosen["dense_model"] is None:
        raise UsageError(f"{name} is a codebook of log-mel features, which textlesslib does not have.")
    return {**chosen, "backend": "native", "precision": "fp32", "chunking": "textless", "chunk_s": 100.0}


def _spread(manifest: Path, count: int) -> Iterator[Item]:
    """`count` items, evenly over the manifest."""
    total = sum(1 for _ in items(manifest, keyed=False))
    wanted = {number * total // count for number in range(min(count, total))} if count < total else None
    return (item for item in items(manifest, keyed=False) if wanted is None or item.index in wanted)


def _run(python: str, side: str, options: argparse.Namespace, work: Path) -> int:
    """One side in its environment, its messages on standard error as they come; its exit status."""
    command = [
        python,
        "-m",
        "pipelines.units.parity",
        options.pipeline,
        str(options.manifest),
        "--units",
        options.units,
    ]
    environment = {**os.environ, "PYTHONPATH": str(paths.repository()), "PYTHONNOUSERSITE": "1"}
    # not here: `python -m` looks for modules in the working directory first
    done = subprocess.run(
        [*command, "--side", side, "--work", str(work)], check=False, env=environment, cwd=paths.repository()
    )
    return done.returncode


def _report(found: Sequence[Compared], least: float) -> int:
    """Print what was found; the exit status."""
    compared = [each for each in found if each.error is None]
    frames, unequal, ties = (sum(getattr(each, name) for each in compared) for name in ("frames", "unequal", "ties"))
    share = 1 - unequal / frames if frames else 0.0
    lines = [
        f"items      {len(compared):,} ({sum(each.seconds for each in compared) / 60:.1f} minutes)",
        f"units      {frames:,}",
        f"equal      {100 * share:.4f} % ({unequal:,} of {frames:,} differ)",
    ]
    if unequal:
        lines.append(
            f"near ties  {ties:,} of the {unequal:,} ({100 * ties / unequal:.1f} %): both centroids are equally far, "
            f"within {100 * NEAR_TIE:g} %"
        )
    worst = sorted((each for each in compared if each.unequal), key=lambda each: -each.unequal / each.frames)[:_WORST]
    lines += [f"worst      {each.unequal:,} of {each.frames:,}  {each.path}{_lengths(each)}" for each in worst]
    failed = [each for each in found if each.error is not None]
    lines += [f"not read   {each.path}: {each.error}" for each in failed[:_WORST]]
    if len(failed) > _WORST:
        lines.append(f"not read   … and {len(failed) - _WORST:,} more")
    good = bool(frames) and share >= least
    lines.append(f"{'fit' if good else 'NOT FIT'}        at least {100 * least:g} % must be equal")
    sys.stdout.write("\n".join(lines) + "\n")
    return DONE if good else SOME_FAILED


def _lengths(each: Compared) -> str:
    return f" (native has {each.lengths[0]:,} units, the reference {each.lengths[1]:,})" if each.lengths else ""


def _read(path: Path, kind: type) -> list:  # type: ignore[type-arg]
    return [msgspec.json.decode(line, type=kind) for line in path.read_bytes().splitlines()]


# -- one side, in its environment


def _side(options: argparse.Namespace) -> int:
    from pipelines.units import environment

    work = Path(options.work)
    parameters = msgspec.json.decode((work / "parameters.json").read_bytes())
    parameters["backend"] = options.side
    logging.disable(logging.INFO)  # fairseq tells of packages that it could also use
    environment.verify(parameters)
    found = _native(parameters, work) if options.side == "native" else _textless(parameters, work)
    name = "native" if options.side == "native" else "compared"
    (work / f"{name}.jsonl").write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in found))
    return DONE


def _native(parameters: Parameters, work: Path) -> Iterator[Encoded]:
    from pipelines.audio.items import Audio
    from pipelines.units import encoder

    coder = encoder.load(parameters)
    for index, item in enumerate(items(work / "rows.jsonl", keyed=False)):
        audio = Audio(item)
        units = coder.encode_recordings([audio])[0]
        if audio.fault is not None:
            yield Encoded(index, error=str(audio.fault))
        else:
            yield Encoded(index, base64.b64encode(units.astype("<u2").tobytes()).decode())


def _textless(parameters: Parameters, work: Path) -> Iterator[Compared]:
    """The reference's units beside the native ones, and how far the two centroids of unequal ones are."""
    import numpy as np

    from pipelines.audio.items import Audio
    from pipelines.units.reference import ReferenceEncoder

    coder = ReferenceEncoder.load(parameters)
    natives = _read(work / "native.jsonl", Encoded)
    for item, native in zip(items(work / "rows.jsonl", keyed=False), natives):
        audio = Audio(item)
        blocks = list(audio())
        if native.error is not None or audio.fault is not None:
            yield Compared(item.audio_filepath, error=native.error or str(audio.fault))
            continue
        features = coder.features(np.concatenate(blocks))
        theirs = coder.assign(features).astype(np.int64)
        ours = np.frombuffer(base64.b64decode(native.units), "<u2").astype(np.int64)
        both = min(len(ours), len(theirs))
        where = np.flatnonzero(ours[:both] != theirs[:both])
        near, far = (
            np.linalg.norm(features[where].astype(np.float64) - coder.centroids[each[where]], axis=1)
            for each in (theirs, ours)
        )
        yield Compared(
            item.audio_filepath,
            max(len(ours), len(theirs)),
            len(where) + abs(len(ours) - len(theirs)),
            int((np.abs(far - near) <= NEAR_TIE * np.maximum(near, far)).sum()),
            audio.samples / _RATE,
            None if len(ours) == len(theirs) else [len(ours), len(theirs)],
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
