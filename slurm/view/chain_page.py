"""The report of a chain as one HTML page: its steps, a few items to listen to, then each step as in its own report."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple, Optional

from pipelines.core import clock
from pipelines.core.run import Run
from slurm.chain import show, state
from slurm.chain.show import View
from slurm.view import gallery, report_course, report_data, report_results
from slurm.view.html import code, definitions, escape, figure, prose, section, table
from slurm.view.report_data import Report
from slurm.view.words import amount, figures

_BOARD_ROWS = 10


class Step(NamedTuple):
    """A step of the chain with its report, where it has a run."""

    name: str
    report: Optional[Report]


class ChainReport(NamedTuple):
    """The material of a chain's page."""

    view: View
    steps: list[Step]
    exhibit: gallery.Exhibit
    made: str


def gather(chain: str) -> ChainReport:
    """Read a chain and all its runs."""
    view = show.look(chain)
    steps = [
        Step(name, report_data.gather(Run.open(link.run)) if link.run else None)
        for name, link in view.whole.links.items()
    ]
    return ChainReport(view, steps, gallery.gather(_wanted(view, steps)), clock.iso())


def _wanted(view: View, steps: list[Step]) -> dict[str, Optional[str]]:
    """Which manifests the items to show are in, by the pipelines that have done their part."""
    wanted: dict[str, Optional[str]] = {}
    sampled: set[str] = set()
    for step in steps:
        link = view.whole.links[step.name]
        if step.report is None or link.state != state.DONE:
            continue
        pipeline, results = step.report.run.plan.pipeline, link.results
        if pipeline == "vad":
            wanted["segments"] = results.get("segments")
        if pipeline == "sample":
            sampled.add(results.get("manifest", ""))
        if pipeline == "sts":
            kind = "sampled" if step.report.run.plan.source in sampled else "spoken"
            wanted.setdefault(kind, results.get("manifest"))
        if pipeline in ("encode", "asr") or (pipeline == "vad" and "manifest" not in wanted):
            wanted["manifest"] = results.get("manifest")
    return wanted


def page(report: ChainReport) -> str:
    """The page's source."""
    folder = Path(__file__).parent
    style = "\n".join((folder / name).read_text(encoding="utf-8") for name in ("report.css", "chain.css"))
    order = report.view.order
    parts = [_header(report), gallery.gallery(report.exhibit), *(_step(report, step) for step in report.steps)]
    foot = f"<footer>Made {escape(report.made)} from the runs' own files.</footer>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(order.id)} – voxarray</title><style>\n{style}</style></head>\n"
        f"<body><main>\n{chr(10).join(part for part in parts if part)}\n</main>\n{foot}</body></html>\n"
    )


def _header(report: ChainReport) -> str:
    view = report.view
    style = {"done": "good", "running": "live", "waiting": "live"}.get(view.state, "bad")
    rows = [_row(report, number, step) for number, step in enumerate(report.steps, 1)]
    head = ["", "step", "state", "items", "given up", "audio", "× real time", "command"]
    values = definitions([(name, code(value)) for name, value in view.order.values.items()])
    return (
        f'<header><p class="kicker">chain <span class="badge {style}">{escape(view.state)}</span></p>'
        f"<h1>{escape(view.order.title)}</h1><p>{code(view.order.id)}</p>"
        f"{table(head, rows, right=(0, 3, 4, 5, 6))}{values}</header>"
    )


def _row(report: ChainReport, number: int, step: Step) -> list[str]:
    link = report.view.whole.links[step.name]
    command = code(f"voxarray {' '.join(report.view.order.link(step.name).words)}")
    name = f'<a href="#step-{number}">{escape(step.name)}</a>'
    if step.report is None:
        return [str(number), name, escape(link.state), "", "", "", "", command]
    view = step.report.view
    return [
        str(number),
        name,
        escape(link.state),
        f"{view.items:,}",
        f"{view.quarantined:,}" if view.quarantined else "",
        escape(amount(view.audio_seconds)) if view.audio_seconds else "",
        figures(view.speed) if view.speed else "",
        command,
    ]


def _step(report: ChainReport, step: Step) -> str:
    """What the step's own report shows, but for where it came from; a tool's output as it is."""
    number = report.steps.index(step) + 1
    link = report.view.whole.links[step.name]
    top = f'<h1 class="step" id="step-{number}">{number}. {escape(step.name)}</h1>'
    stopped = f'<p class="badge bad">{prose(link.message)}</p>' if link.state == state.STOPPED else ""
    if step.report is None:
        return top + stopped + _output(link.results.get("output"))
    parts = [
        report_results.damaged(step.report),
        report_course.conservation(step.report),
        _board(link.results.get("leaderboard")),
        report_course.course(step.report),
        report_course.speed(step.report),
        report_results.distributions(step.report),
        report_results.failed(step.report),
    ]
    return top + stopped + "\n".join(part for part in parts if part)


def _output(path: Optional[str]) -> str:
    if path is None or not Path(path).exists():
        return ""
    return f"<pre>{escape(Path(path).read_text(encoding='utf-8', errors='replace'))}</pre>"


def _board(path: Optional[str]) -> str:
    """The leaderboard of trainings, with their curves."""
    if path is None or not Path(path).with_suffix(".csv").exists():
        return ""
    with Path(path).with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in ("rank", "name", "bits_per_unit", "perplexity", "bits_per_second", "epochs") if rows]
    cells = [[escape(row.get(name, "")) for name in names] for row in rows[:_BOARD_ROWS]]
    drawn = Path(path).with_suffix(".svg")
    curves = figure(drawn.read_text(encoding="utf-8"), "Bits a unit in validation, by step.") if drawn.exists() else ""
    return section("How well units are predicted", table(names, cells, right=(0, 2, 3, 4, 5)), curves)
