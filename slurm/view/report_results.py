"""The lower half of a report: what came out, what failed and why, and where it all came from."""

from __future__ import annotations

import shlex
from typing import Optional

import msgspec

from slurm.view import histograms, report_wer
from slurm.view.failures import Cause
from slurm.view.histograms import Plot, span
from slurm.view.html import advice, code, columns, definitions, escape, figure, prose, section, table
from slurm.view.report_data import Report
from slurm.view.results import DURATION, RATIO
from slurm.view.sketch import Sketch
from slurm.view.words import amount, counted, figures, share

_MOST_CAUSES = 20
_MOST_LAUNCHES = 30
_MOST_FIELDS = 24
_FEWEST = 5
_LONG = 600
"""Longer texts (messages, commands, parameters) are cut."""


def distributions(report: Report) -> str:
    """Durations, speech ratio, segments and pauses, each if the results tell; and how right transcripts are."""
    results = report.results
    plots = columns(
        _durations(results.fields.get(DURATION)),
        _ratios(results.fields.get(RATIO)),
        _segments(results.segments),
        _pauses(results.pauses),
    )
    rates = report_wer.rates(report)
    if not plots:
        return rates
    sample = f"From a sample of {results.sampled:,} items." if results.stride > 1 else ""
    note = f'<p class="note">{sample}</p>' if sample else ""
    return rates + section("What is in the recordings", plots, note, name="results")


def _can_be_drawn(sketch: Sketch) -> bool:
    """Whether there are enough different values for a histogram to tell something."""
    return sketch.count >= _FEWEST and sketch.low < sketch.high


def _durations(sketch: Optional[Sketch]) -> str:
    if sketch is None or not _can_be_drawn(sketch):
        return ""
    title = f"Half of the recordings last less than {span(sketch.quantile(0.5))}, the longest {span(sketch.high)}"
    plot = Plot("recording", "duration, logarithmic", title)
    return figure(
        histograms.lengths(sketch, plot),
        f"Recordings by duration; the mean is {span(sketch.mean)}, and 95 % are below {span(sketch.quantile(0.95))}.",
        title,
    )


def _ratios(sketch: Optional[Sketch]) -> str:
    if sketch is None or not _can_be_drawn(sketch):
        return ""
    silent = sketch.parts(50)[0].size
    title = f"In the median recording {100 * sketch.quantile(0.5):.0f} % of the time is speech"
    if silent:
        title += f"; {share(silent, sketch.count)} have hardly any"
    plot = Plot("recording", "share of speech", title, "three")
    return figure(histograms.shares(sketch, plot), "Recordings by their share of speech.", title)


def _segments(sketch: Sketch) -> str:
    if not _can_be_drawn(sketch):
        return ""
    title = f"Speech comes in segments of {span(sketch.quantile(0.5))} (median)"
    plot = Plot("segment", "length of a segment, logarithmic", title, "three")
    return figure(histograms.lengths(sketch, plot), f"{counted(sketch.count, 'segment')} of speech by length.", title)


def _pauses(sketch: Sketch) -> str:
    if not _can_be_drawn(sketch):
        return ""
    title = f"Pauses between them last {span(sketch.quantile(0.5))} (median)"
    plot = Plot("pause", "length of a pause, logarithmic", title, "four")
    return figure(histograms.lengths(sketch, plot), f"{counted(sketch.count, 'pause')} within recordings.", title)


def fields(report: Report) -> str:
    """Every number in the results in one table, with a small histogram each."""
    found = [(name, sketch) for name, sketch in report.results.fields.items() if sketch.count]
    if not found or not report.results.done:
        return ""
    if all(sketch.low == sketch.high for _, sketch in found):
        rows = [[code(name), figures(sketch.high, 4)] for name, sketch in found[:_MOST_FIELDS]]
        return section("Every number in the results", table(["field", "value"], rows, right=(1,)), name="fields")
    head = ["field", "between 1 and 99 %", "least", "5 %", "median", "mean", "95 %", "most", "zero"]
    rows = [
        [
            code(name),
            histograms.sparkline(sketch) if sketch.low < sketch.high else "",
            *(figures(value, 4) for value in (sketch.low, sketch.quantile(0.05), sketch.quantile(0.5), sketch.mean)),
            *(figures(value, 4) for value in (sketch.quantile(0.95), sketch.high)),
            share(sketch.zeros, sketch.count) if sketch.zeros else "",
        ]
        for name, sketch in found[:_MOST_FIELDS]
    ]
    more = f'<p class="note">{len(found) - _MOST_FIELDS} more are left out.</p>' if len(found) > _MOST_FIELDS else ""
    title = "Every number in the results"
    return section(title, table(head, rows, right=range(2, 9), style="fields"), more, name="fields")


def failed(report: Report) -> str:
    """Failures by cause, with examples and what to do."""
    causes = report.causes
    if not causes:
        text = "<p>No item failed, not even once.</p>" if report.view.done else ""
        return section("Nothing failed", text, name="failures") if text else ""
    most = max(cause.items for cause in causes)
    rows = "".join(_cause(cause, most) for cause in causes[:_MOST_CAUSES])
    more = len(causes) - _MOST_CAUSES
    note = f'<p class="note">{counted(more, "rarer cause")} left out.</p>' if more > 0 else ""
    if report.results.blame.beyond:
        note += f'<p class="note">{report.results.blame.beyond:,} more failed tries were not told apart.</p>'
    return section(_failed_title(report), f'<ol class="causes">{rows}</ol>', note, name="failures")


def _failed_title(report: Report) -> str:
    given_up = report.view.quarantined
    again = sum(cause.items - cause.quarantined for cause in report.causes)
    first = report.causes[0]
    if not given_up:
        return f"{counted(again, 'item')} failed once; none is given up"
    why = ", all for one reason" if len(report.causes) == 1 and given_up > 1 else ""
    if len(report.causes) > 1 and first.quarantined > given_up / 2:
        why = f", {share(first.quarantined, given_up)} of them for one reason"
    verb = "is" if given_up == 1 else "are"
    return f"{counted(given_up, 'item')} {verb} quarantined{why}"


def _cause(cause: Cause, most: int) -> str:
    examples = "".join(f"<li>{code(example.path)}</li>" for example in cause.examples if example.path)
    again = cause.items - cause.quarantined
    told = [f"{cause.quarantined:,} quarantined"] if cause.quarantined else []
    told += [f"{again:,} failed so far, to be tried again"] if again else []
    # The signature is the message's first line, without its particulars; more of it is shown where there is more.
    said = f"<pre>{escape(_short(cause.message))}</pre>" if "\n" in cause.message.strip() else ""
    return (
        f'<li><p class="cause"><b>{cause.items:,}</b> {escape(cause.signature)}</p>'
        f'<div class="meter"><span style="width:{100 * cause.items / most:.1f}%"></span></div>'
        f'<p class="note">{", ".join(told)}; {counted(cause.tries, "try", "tries")} in all. {advice(cause.advice)}</p>'
        f"{said}<ul>{examples}</ul></li>"
    )


def provenance(report: Report) -> str:
    """Where the results came from: code, environment, parameters, commands, launches, outputs."""
    plan, view = report.run.plan, report.view
    commit = plan.code.commit
    state = " with changes (their diff is in the run's folder)" if plan.code.modified else ""
    facts: list[tuple[str, Optional[str]]] = [
        ("pipeline", escape(plan.pipeline)),
        ("source", code(plan.source)),
        ("manifest", code(plan.manifest) if plan.manifest != plan.source else None),
        ("command", code(_command(plan.argv))),
        ("made", f"{escape(plan.created)} on {escape(plan.host)}"),
        ("code", f"{code(commit[:12])}{state}" if commit else "not under version control"),
        ("environment", f"{escape(plan.environment.name)}, Python {escape(plan.environment.python)}"),
        ("lock", code(plan.environment.lock[:16] + "…") if plan.environment.lock else None),
        ("voxarray", escape(plan.voxarray)),
        ("run folder", code(str(report.run.folder))),
    ]
    parts = [definitions([*facts, ("cost", _cost(report))])]
    if plan.parameters:
        rows = [
            [code(name), code(_short(msgspec.json.encode(value).decode()))] for name, value in plan.parameters.items()
        ]
        parts.append("<h3>Parameters</h3>" + table(["parameter", "value"], rows))
    parts.append("<h3>Launches</h3>" + _launches(report))
    if view.receipt:
        rows = [
            [code(file.path), f"{file.rows:,}", f"{file.bytes:,}", code(file.sha256[:16] + "…")]
            for file in view.receipt.outputs
        ]
        parts.append("<h3>Outputs</h3>" + table(["file", "rows", "bytes", "SHA-256"], rows, right=(1, 2)))
    return section("Where it came from", *parts, name="provenance")


def _cost(report: Report) -> Optional[str]:
    """Time of tasks, cores and GPUs."""
    cost, audio = report.resources, report.view.audio_seconds / 3600
    told = [f"{amount(cost.task * 3600)} of tasks"]
    told += [f"{amount(cost.core * 3600)} of cores asked for"] if cost.core else []
    told += [f"{amount(cost.cpu * 3600)} of processor time, as far as attempts lived to tell"] if cost.cpu else []
    told += (
        [f"{amount(cost.gpu * 3600)} of GPUs, {figures(cost.gpu / audio)} h an hour of audio"]
        if cost.gpu and audio
        else []
    )
    return prose("; ".join(told)) if cost.task else None


def _launches(report: Report) -> str:
    records = report.view.records
    done: dict[int, int] = {}
    for attempt in report.attempts:
        done[attempt.launch] = done.get(attempt.launch, 0) + attempt.done
    rows = [
        [
            str(record.number),
            escape(record.created.replace("T", " ").replace("Z", "")),
            escape(record.cluster),
            f"{record.tasks:,}",
            escape(record.sharding),
            f"{record.items:,}",
            f"{done.get(record.number, 0):,}",
            f"{record.imbalance:.2f}",
            code(_command(record.argv)),
        ]
        for record in records[:_MOST_LAUNCHES]
    ]
    head = ["launch", "made (UTC)", "where", "tasks", "sharding", "items dealt", "done", "longest / mean", "command"]
    more = len(records) - _MOST_LAUNCHES
    note = f'<p class="note">{counted(more, "later launch", "later launches")} left out.</p>' if more > 0 else ""
    return table(head, rows, right=(0, 3, 5, 6, 7)) + note


def _command(argv: list[str]) -> str:
    return _short(shlex.join(argv))


def _short(text: str) -> str:
    return text if len(text) <= _LONG else text[:_LONG] + "…"


def damaged(report: Report) -> str:
    """Parts that cannot be read."""
    if not report.damaged:
        return ""
    rows = "".join(f"<li>{escape(text)}</li>" for text in report.damaged[:10])
    title = f"{counted(len(report.damaged), 'part')} cannot be read; the figures below lack them"
    return section(title, f'<ul class="damaged">{rows}</ul>', name="damaged")
