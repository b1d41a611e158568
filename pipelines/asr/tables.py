"""The words of `voxarray wer`: a report as text for a terminal."""

from __future__ import annotations

from typing import Optional, Sequence

from pipelines.asr.scoring import Counts
from pipelines.asr.tally import Group, Report, Worst

_SHOWN = 20
_WIDTH = 110


def text_of(report: Report) -> str:
    """The report in words and tables."""
    whole = report.whole
    head = f"{report.manifest}: {whole.items:,} items, {whole.seconds / 3600:,.2f} h; "
    lines = [
        head + f"`{report.columns['hypothesis']}` against `{report.columns['reference']}`",
        "",
        *_table(
            ["", "WER %", "words", "sub", "del", "ins", "CER %"],
            [
                [name, *_numbers(pair.words), _percent(pair.characters.rate)]
                for name, pair in (("raw", whole.raw), ("normalised", whole.normalised))
            ],
        ),
        *_notes(report),
    ]
    for name, groups in report.by.items():
        lines += ["", *_groups(name, groups)]
    if report.worst:
        lines += ["", "most errors (normalised words)"]
        for item in report.worst:
            lines += _item(item)
    return "\n".join(lines)


def _notes(report: Report) -> list[str]:
    """What the rates do not say."""
    notes = []
    if not report.whole.normalised.words.total:
        notes.append("There are no words in the references, so there is no rate.")
    if report.empty_references:
        notes.append(
            f"{report.empty_references:,} items have a reference without words (nothing said, or nothing left of it); "
            f"{report.inserted_there:,} words were recognised there, and count as inserted."
        )
    if report.without_hypothesis:
        notes.append(
            f"{report.without_hypothesis:,} items ({report.seconds_without / 3600:,.2f} h) have no "
            f"`{report.columns['hypothesis']}` and are not counted. Counted as empty, they would make the normalised "
            f"WER {_percent(report.rate_with_missed())} %."
        )
    if report.without_reference:
        notes.append(
            f"{report.without_reference:,} items have no `{report.columns['reference']}` and are not counted."
        )
    return ["", *notes] if notes else []


def _groups(name: str, groups: Sequence[Group]) -> list[str]:
    shown = groups[:_SHOWN]
    rows = [
        [
            _short(group.value, 40),
            *_numbers(group.normalised.words),
            _percent(group.normalised.characters.rate),
            f"{group.items:,}",
            f"{group.seconds / 3600:,.2f}",
        ]
        for group in shown
    ]
    lines = _table([f"by {name}", "WER %", "words", "sub", "del", "ins", "CER %", "items", "hours"], rows)
    if len(groups) > len(shown):
        lines.append(f"… and {len(groups) - len(shown):,} more (--json has them)")
    return lines


def _item(item: Worst) -> list[str]:
    length = "" if item.duration is None else f", {item.duration:.1f} s"
    counts = item.words
    return [
        f"  {item.audio_filepath}{length}: {counts.errors} errors, {counts.total} words",
        f"    said        {_short(item.reference, _WIDTH)}",
        f"    recognised  {_short(item.hypothesis, _WIDTH)}",
    ]


def _numbers(counts: Counts) -> list[str]:
    whole = (counts.total, counts.substitutions, counts.deletions, counts.insertions)
    return [_percent(counts.rate), *(f"{number:,}" for number in whole)]


def _percent(rate: Optional[float]) -> str:
    return "–" if rate is None else f"{rate:.2f}"


def _short(text: str, most: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as they need to be, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]).rstrip()
        for row in (head, *rows)
    ]
