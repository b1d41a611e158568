"""The share of pairs in which a model prefers the right sequence: sWUGGY, sBLIMP, and the like.

    ./voxarray pairs MANIFEST                  (python -m pipelines.score.pairs)

Each row of a scored manifest says which pair it is of (`pair`) and whether it is the right one (`correct`). Reported
are the share by log-probability (as the ZeroSpeech challenge counts) and that by log-probability a token. A tie counts
half; a pair with several recordings (voices) of either side counts once, as the mean over its comparisons.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple, Optional, Sequence

import msgspec

from pipelines.core import manifest
from pipelines.core.errors import DONE, ManifestError, VoxarrayError, listed


class Side(NamedTuple):
    """One scored sequence: its log-probability (nats), and that a token."""

    total: float
    mean: float


class Shares(NamedTuple):
    """Of pairs, the right one preferred: by log-probability, and by that a token. `alone`: without a rival."""

    pairs: int
    total: float
    mean: float
    alone: int


def shares(path: Path, field: Optional[str] = None, by: Sequence[str] = ("pair",), correct: str = "correct") -> Shares:
    """The shares over a scored manifest. `by`: the fields that the two sides of a pair share. Raises ManifestError."""
    prefix = f"{field}_" if field else ""
    pairs: dict[tuple[str, ...], tuple[list[Side], list[Side]]] = {}
    bad = []
    for item in manifest.items(path, keyed=False):
        fields = item.fields()
        if fields.get(f"{prefix}log_probability") is None:
            bad.append(f"item {item.index + 1} ({item.audio_filepath})")
            continue
        name, right = tuple(str(_field(path, item.index, fields, key)) for key in by), fields.get(correct)
        if not isinstance(right, bool):
            raise ManifestError(
                f"Item {item.index + 1} of {path} has {correct} {right!r}, which must be true or false."
            )
        total = fields[f"{prefix}log_probability"]
        pairs.setdefault(name, ([], []))[right].append(Side(total, total / fields[f"{prefix}num_tokens"]))
    if bad:
        raise ManifestError(
            f"{len(bad):,} items of {path} have no `{prefix}log_probability`: {listed(bad, len(bad))}. `./voxarray "
            f"score {path} MODEL{f' --field {field}' if field else ''}` adds it; items that it quarantined must be "
            "mended or taken out, with their rivals."
        )
    whole = [pair for pair in pairs.values() if pair[0] and pair[1]]
    if not whole:
        raise ManifestError(
            f"{path} has no pairs: no two rows with the same {' and '.join(by)}, one with {correct} true and one "
            "false."
        )
    wins = [(_wins(wrong, right, 0), _wins(wrong, right, 1)) for wrong, right in whole]
    count = len(wins)
    return Shares(count, sum(a for a, _ in wins) / count, sum(b for _, b in wins) / count, len(pairs) - count)


def _field(path: Path, index: int, fields: dict[str, Any], name: str) -> Any:
    if name not in fields:
        raise ManifestError(
            f"Item {index + 1} of {path} has no field {name!r}, which says of which pair it is. Name the fields that "
            f"the two sides of a pair share with --by; it has {', '.join(sorted(fields))}."
        )
    return fields[name]


def _wins(wrong: Sequence[Side], right: Sequence[Side], which: int) -> float:
    """The mean over all comparisons of a right sequence with a wrong one: 1 preferred, 0.5 equal, 0 not."""
    outcomes = [
        1.0 if one[which] > other[which] else 0.5 if one[which] == other[which] else 0.0
        for one in right
        for other in wrong
    ]
    return sum(outcomes) / len(outcomes)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Print the shares of a scored manifest; returns the exit status."""
    options = build_parser().parse_args(arguments)
    try:
        found = shares(options.manifest, options.field, options.by, options.correct)
    except VoxarrayError as error:
        print(f"voxarray: {error}", file=sys.stderr)
        return error.exit_status
    if options.json:
        print(msgspec.json.encode(found._asdict()).decode())
        return DONE
    print(f"pairs                     {found.pairs:,}")
    print(f"right, by log-probability {found.total:.4f}")
    print(f"right, a token            {found.mean:.4f}")
    if found.alone:
        print(f"without a rival           {found.alone:,} (left out)")
    return DONE


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="voxarray pairs",
        allow_abbrev=False,
        description="The share of pairs in which a model prefers the right sequence (sWUGGY, sBLIMP): by "
        "log-probability, and by log-probability a token. A tie counts half.",
    )
    parser.add_argument("manifest", metavar="MANIFEST", type=Path, help="as `score` wrote it")
    parser.add_argument(
        "--by",
        metavar="FIELD",
        nargs="+",
        default=["pair"],
        help="fields that the two sides of a pair share (default: pair)",
    )
    parser.add_argument(
        "--correct", metavar="FIELD", default="correct", help="true for the right side (default: %(default)s)"
    )
    parser.add_argument("--field", metavar="NAME", help="of the model whose scores count, as given to `score`")
    parser.add_argument("--json", action="store_true", help="one JSON object: pairs, total, mean, alone")
    return parser


if __name__ == "__main__":
    sys.exit(main())
