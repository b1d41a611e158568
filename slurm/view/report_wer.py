"""Word error rates in a report of transcripts, where the manifest has references: from the run's `wer.json`.

The launcher's environment cannot count them, so that file is made by `voxarray wer --json` in the pipeline's own, once
for each merge. A report never makes an environment, and never fails because of this section: where there are no rates,
it says why.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path
from typing import NamedTuple, Optional, Union

import msgspec

from pipelines.core import manifest, merge, paths, store
from pipelines.core.errors import VoxarrayError
from pipelines.core.run import Run
from slurm import environments, vouching
from slurm.view.html import advice, code, escape, section, table
from slurm.view.report_data import Report
from slurm.view.words import counted

FILE = "wer.json"
"""In the run's folder. One that was made by hand (`voxarray wer … --json`) after the last merge is shown as well."""
_PIPELINE, _MODULE = "asr", "pipelines.asr.wer"
_REFERENCES = ("text_reference", "reference", "text")
"""Where a manifest has what was said; which of them it is, `voxarray wer` decides."""
_LOOK_AT = 1000
_PATIENCE_S = 1800.0
_MOST_GROUPS, _MOST_WORST, _LONG = 20, 10, 240
_GROUP_HEAD = ["WER %", "words", "substituted", "deleted", "inserted", "CER %", "items", "hours"]


class Counts(msgspec.Struct):
    """What was right and wrong of words, or of characters."""

    hits: int
    substitutions: int
    deletions: int
    insertions: int


class Pair(msgspec.Struct):
    """Errors of words and of characters."""

    words: Counts
    characters: Counts


class Group(msgspec.Struct):
    """Items that are counted together."""

    value: str
    items: int
    seconds: float
    raw: Pair
    normalised: Pair


class Worst(msgspec.Struct):
    """An item with many errors."""

    audio_filepath: str
    duration: Optional[float]
    reference: str
    hypothesis: str
    words: Counts


class Scores(msgspec.Struct):
    """What is read of `voxarray wer --json`."""

    columns: dict[str, str]
    whole: Group
    by: dict[str, list[Group]]
    worst: list[Worst]
    without_reference: int = 0
    without_hypothesis: int = 0
    empty_references: int = 0
    wer_with_missed: Optional[float] = None


class Reason(NamedTuple):
    """Why there are no rates; commands between backticks."""

    text: str


def rates(report: Report) -> str:
    """The section; empty for runs that have no transcripts, or none to compare with."""
    found = _scores(report.run, report.view.receipt)
    if found is None:
        return ""
    if isinstance(found, Reason):
        return section("Word error rate", f"<p>{advice(found.text)}</p>", name="wer")
    return _section(found)


# -- finding


def _scores(run: Run, receipt: Optional[merge.Receipt]) -> Union[Scores, Reason, None]:
    """The rates of a run; why there are none; None where there is nothing to tell."""
    if run.plan.pipeline != _PIPELINE or receipt is None:
        return None
    path = run.folder / FILE
    try:
        if not _is_newer(path, merge.receipt_path(run)):
            if not _has_references(run):
                return None
            fault = _make(run, receipt, path)
            if fault is not None:
                return fault
        return msgspec.json.decode(path.read_bytes(), type=Scores)
    except msgspec.MsgspecError as error:
        return Reason(f"{path} cannot be read ({error}): delete it, and make the report again.")
    except (VoxarrayError, OSError, subprocess.SubprocessError) as error:
        return Reason(f"It was not counted: {error}")


def _is_newer(path: Path, other: Path) -> bool:
    return path.exists() and path.stat().st_mtime_ns >= other.stat().st_mtime_ns


def _field(run: Run) -> str:
    return str(run.plan.parameters.get("field") or "text")


def _has_references(run: Run) -> bool:
    """Whether the first rows have a field that may hold what was said."""
    names = {name for name in _REFERENCES if name != _field(run)}
    for line in itertools.islice(manifest.lines(run.manifest), _LOOK_AT):
        if any(f'"{name}"'.encode() in line for name in names):
            row = msgspec.json.decode(line)
            if isinstance(row, dict) and any(isinstance(row.get(name), str) for name in names):
                return True
    return False


def _holds_ours(run: Run, receipt: merge.Receipt) -> bool:
    """Whether the manifest still has this run's texts: as it left them, or with what later pipelines added."""
    merged = next((file for file in receipt.outputs if file.path == str(run.manifest)), None)
    if merged is None or run.manifest.stat().st_size == merged.bytes:
        return merged is not None
    later = [
        other
        for other, theirs in vouching.publishers(run.manifest, run)
        if other.plan.pipeline == _PIPELINE and _field(other) == _field(run) and theirs.time > receipt.time
    ]
    return not later and vouching.is_vouched_for(run.manifest, run)


def _make(run: Run, receipt: merge.Receipt, path: Path) -> Optional[Reason]:
    """Count, and keep what was found. Why not, where it cannot be."""
    command = f"`./voxarray wer {run.manifest}`"
    if not _holds_ours(run, receipt):
        return Reason(
            f"It was not counted, because the manifest has changed since this run was merged; {command} counts what "
            "it holds now."
        )
    if not environments.is_ready(_PIPELINE):
        return Reason(f"It was not counted, because the environment {_PIPELINE} is not here; {command} makes it.")
    options = ["--hypothesis", _field(run), "--json", "--worst", str(_MOST_WORST)]
    language = (run.plan.parameters.get("settings") or {}).get("language")
    done = subprocess.run(
        [str(environments.python(_PIPELINE)), "-m", _MODULE, str(run.manifest), *options]
        + (["--language", str(language)] if language else []),
        env={**os.environ, "PYTHONPATH": str(paths.repository()), "VOXARRAY_HOME": str(paths.home())},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_PATIENCE_S,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return Reason(f"It was not counted: {said[-1] if said else f'{command} failed'}")
    store.replace(path, done.stdout)
    return None


# -- showing


def _section(scores: Scores) -> str:
    whole = scores.whole
    rate = _rate(whole.normalised.words)
    title = "Word error rate" if rate == _NONE else f"Word error rate {rate} %"
    said = (
        f"<p>{code(scores.columns.get('hypothesis', '?'))} against {code(scores.columns.get('reference', '?'))}, "
        f"{counted(whole.items, 'item')}, {whole.seconds / 3600:,.2f} h; normalised as Whisper's normalisers do.</p>"
    )
    both = table(
        ["", *_GROUP_HEAD[:6]],
        [[name, *_numbers(pair)] for name, pair in (("raw", whole.raw), ("normalised", whole.normalised))],
        right=range(1, 7),
    )
    groups = "".join(_groups(name, found) for name, found in scores.by.items() if found)
    return section(title, said, both, _notes(scores), groups, _worst(scores.worst), name="wer")


def _notes(scores: Scores) -> str:
    told = []
    if scores.without_hypothesis:
        rate = scores.wer_with_missed
        told.append(
            f"{counted(scores.without_hypothesis, 'item')} without a transcript not counted"
            + (f" (as empty ones they would make the rate {rate:.2f} %)" if rate is not None else "")
        )
    if scores.without_reference:
        told.append(f"{counted(scores.without_reference, 'item')} without a reference not counted")
    if scores.empty_references:
        told.append(f"{counted(scores.empty_references, 'reference')} without words: what was heard there is inserted")
    return f'<p class="note">{escape("; ".join(told))}.</p>' if told else ""


def _groups(name: str, groups: list[Group]) -> str:
    shown = groups[:_MOST_GROUPS]
    rows = [
        [escape(_short(group.value)), *_numbers(group.normalised), f"{group.items:,}", f"{group.seconds / 3600:,.2f}"]
        for group in shown
    ]
    more = len(groups) - len(shown)
    note = f'<p class="note">{more:,} more left out.</p>' if more else ""
    return f"<h3>By {escape(name)}, normalised</h3>" + table([name, *_GROUP_HEAD], rows, right=range(1, 9)) + note


def _worst(items: list[Worst]) -> str:
    if not items:
        return ""
    rows = "".join(
        f'<li><p class="cause"><b>{_errors(item.words):,}</b> {_words_of(item)}</p>'
        f'<p class="note">said: {escape(_short(item.reference))}</p>'
        f'<p class="note">recognised: {escape(_short(item.hypothesis))}</p>'
        f"<ul><li>{code(item.audio_filepath)}</li></ul></li>"
        for item in items[:_MOST_WORST]
    )
    return f'<h3>Most errors</h3><ol class="causes">{rows}</ol>'


def _words_of(item: Worst) -> str:
    length = "" if item.duration is None else f", {item.duration:,.1f}\u00a0s"
    return f"errors in {counted(_total(item.words), 'word')}{length}"


_NONE = "–"


def _numbers(pair: Pair) -> list[str]:
    counts = pair.words
    whole = (_total(counts), counts.substitutions, counts.deletions, counts.insertions)
    return [_rate(counts), *(f"{number:,}" for number in whole), _rate(pair.characters)]


def _rate(counts: Counts) -> str:
    return f"{100 * _errors(counts) / _total(counts):.2f}" if _total(counts) else _NONE


def _total(counts: Counts) -> int:
    return counts.hits + counts.substitutions + counts.deletions


def _errors(counts: Counts) -> int:
    return counts.substitutions + counts.deletions + counts.insertions


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONG else text[:_LONG] + "…"
