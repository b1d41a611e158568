"""The options of VAD that change results, under the names that pyannote, NeMo and Silero users know."""

from __future__ import annotations

import argparse
import math
from typing import Any, Callable, NamedTuple, Optional

from pipelines.core.errors import UsageError
from pipelines.core.pipeline import Parameters
from pipelines.voice import ENGINES


class _Option(NamedTuple):
    """One number: its parameter, its options (the first is the one we speak of), those in milliseconds, its help."""

    name: str
    flags: tuple[str, ...]
    in_milliseconds: tuple[str, ...]
    default: Optional[float]
    unit: str
    help: str


_OPTIONS = (
    _Option("onset", ("--threshold", "--onset"), (), 0.5, "P", "speech begins with a probability above P"),
    _Option(
        "offset",
        ("--offset", "--neg-threshold"),
        (),
        None,
        "P",
        "speech ends at a probability of P or less; below the threshold, it keeps short dips inside (Silero: 0.35)",
    ),
    _Option(
        "min_speech",
        ("--min-speech", "--min-duration-on"),
        ("--min-speech-duration-ms",),
        0.0,
        "S",
        "drop speech shorter than S seconds",
    ),
    _Option(
        "min_silence",
        ("--min-silence", "--min-duration-off"),
        ("--min-silence-duration-ms",),
        0.0,
        "S",
        "join speech that less than S seconds of silence separate",
    ),
    _Option("pad_onset", ("--pad-onset",), (), 0.0, "S", "lengthen each segment by S seconds at its start"),
    _Option("pad_offset", ("--pad-offset",), (), 0.0, "S", "lengthen each segment by S seconds at its end"),
    _Option(
        "max_segment",
        ("--max-segment", "--max-speech-duration-s"),
        (),
        None,
        "S",
        "cut segments longer than S seconds (padding included) at their longest pause",
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options, each spelled with hyphens or underscores; values in seconds unless the name says otherwise."""
    group = parser.add_argument_group("speech and its segments (the defaults give the raw runs of speech)")
    group.add_argument(
        "--engine",
        choices=ENGINES,
        default=ENGINES[0],
        help="ten: TEN-VAD, frames of 16 ms; silero: Silero VAD, frames of 32 ms, many times faster",
    )
    for option in _OPTIONS:
        default = "" if option.default is None else f" (default: {option.default:g})"
        _add(group, option.flags, option.name, option.unit, option.help + default, _number)
        _add(group, option.in_milliseconds, option.name, "MS", argparse.SUPPRESS, _milliseconds)
    _add(group, ("--pad", "--speech-pad"), "pad", "S", "the same as --pad-onset S --pad-offset S", _number)
    _add(group, ("--speech-pad-ms",), "pad", "MS", argparse.SUPPRESS, _milliseconds)
    group.add_argument("--rttm", action="store_true", help="write the segments as STEM.rttm too")


def _add(group: Any, flags: tuple[str, ...], name: str, unit: str, text: str, kind: Callable[[str], float]) -> None:  # noqa: PLR0917
    """Add an option, and (hidden from --help) its spellings with underscores."""
    if not flags:
        return
    group.add_argument(*flags, dest=name, type=kind, metavar=unit, default=argparse.SUPPRESS, help=text)
    hidden = [flag.replace("-", "_").replace("__", "--", 1) for flag in flags if "-" in flag[2:]]
    if hidden:
        group.add_argument(*hidden, dest=name, type=kind, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


_number.__name__ = "number"  # argparse says "invalid number value"


def _milliseconds(text: str) -> float:
    return _number(text) / 1000


_milliseconds.__name__ = "number of milliseconds"


def parameters(options: argparse.Namespace) -> Parameters:
    """The validated options, every default filled in. Raises UsageError."""
    values: dict[str, Any] = {"engine": options.engine}
    for option in _OPTIONS:
        values[option.name] = getattr(options, option.name, option.default)
    if hasattr(options, "pad"):
        _fill_pads(options, values)
    if values["offset"] is None:
        values["offset"] = values["onset"]
    values["rttm"] = options.rttm
    _verify_thresholds(values["onset"], values["offset"])
    _verify_times(values)
    return values


def _fill_pads(options: argparse.Namespace, values: dict[str, Any]) -> None:
    for name in ("pad_onset", "pad_offset"):
        if not hasattr(options, name):
            values[name] = options.pad


def _verify_thresholds(onset: float, offset: float) -> None:
    if not 0 < onset < 1:
        raise UsageError(f"--threshold is {onset:g}, and must lie between 0 and 1 (both excluded); 0.5 is usual.")
    if not 0 < offset <= onset:
        raise UsageError(
            f"--offset is {offset:g}, and must be above 0 and no higher than the threshold, {onset:g}: speech begins "
            "above the threshold and ends at or below the offset. Leave it out to end speech at the threshold."
        )


def _verify_times(values: dict[str, Any]) -> None:
    for name in ("min_speech", "min_silence", "pad_onset", "pad_offset"):
        if not 0 <= values[name] <= 3600:
            flag = "--" + name.replace("_", "-")
            raise UsageError(
                f"{flag} is {values[name]:g} seconds, and must be from 0 to 3600. Times are in seconds; milliseconds "
                "go with Silero's names (--min-speech-duration-ms, --min-silence-duration-ms, --speech-pad-ms)."
            )
    longest = values["max_segment"]
    if longest is None:
        return
    pads = values["pad_onset"] + values["pad_offset"]
    least = max(0.1, pads + 2 * max(0.032, values["min_speech"]))
    if longest < least:
        raise UsageError(
            f"--max-segment is {longest:g} seconds, and must be {least:g} or more with these options: a segment that "
            "is cut leaves two pieces of --min-speech or more, and the padding counts. Raise it, or lower those."
        )
