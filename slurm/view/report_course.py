"""The upper half of a report: the headline, the proof that nothing is lost, how it went, how fast each task was."""

from __future__ import annotations

from typing import Optional

from pipelines.core import clock
from slurm.view import speeds, timeline
from slurm.view.attempts import CUT_SHORT
from slurm.view.html import code, definitions, escape, figure, prose, section
from slurm.view.next_steps import commands
from slurm.view.report_data import Report
from slurm.view.run_text import sentence
from slurm.view.speeds import Speed
from slurm.view.time_axis import moment, spoken
from slurm.view.words import amount, brief, counted, figures, share

_WORRYING = 0.05
"""With a larger share of the items quarantined, a merged run is not shown as if all were well."""
_FEW = 10


def header(report: Report) -> str:
    """What was done, in one sentence, and the numbers that people ask for first."""
    view, plan = report.view, report.run.plan
    state = "bad" if view.state in ("incomplete", "stalled", "cancelled") else "good" if view.exact else "live"
    if view.exact and view.quarantined > _WORRYING * view.items:
        state = "warn"
    return (
        f'<header><p class="kicker">{escape(plan.pipeline)} '
        f'<span class="badge {state}">{escape(sentence(view))}</span></p>'
        f'<h1>{escape(plan.run_id)}</h1><p class="lead">{prose(_lead(report))}</p>{_numbers(report)}</header>'
    )


def _lead(report: Report) -> str:
    view = report.view
    tasks = len({(attempt.launch, attempt.task) for attempt in report.attempts})
    if not report.attempts:
        return f"{counted(view.items, 'item')}; no task has begun yet."
    if not view.done and not view.left:
        where = f"{clock.spoken(report.wall_s)} on {counted(tasks, 'task')}"
        return f"No item could be processed: all {view.items:,} are quarantined, after {where}."
    said = (
        f"{view.done:,} of {counted(view.items, 'item')}"
        if view.left or view.quarantined
        else f"All {view.items:,} items"
    )
    said = "The one item" if view.items == 1 and view.done == 1 else said
    how = f"{amount(view.audio_seconds)} of audio, " if view.audio_seconds else ""
    verb = "is" if view.items == 1 or (view.done == 1) else "are"
    text = f"{said} {verb} done: {how}in {clock.spoken(report.wall_s)} on {counted(tasks, 'task')}"
    text += f", {figures(view.speed)} times faster than real time." if view.speed and view.speed > 1 else "."
    if view.quarantined:
        text += f" {counted(view.quarantined, 'item')} could not be processed."
    if view.left:
        text += f" {view.left:,} are left" + (f", about {clock.spoken(view.eta_s)}." if view.eta_s else ".")
    return text


def _numbers(report: Report) -> str:
    view, results, cost = report.view, report.results, report.resources
    speech = results.speech_share
    cut = any(attempt.state == CUT_SHORT for attempt in report.attempts)
    pairs: list[tuple[str, Optional[str]]] = [
        ("items", f"{view.items:,}"),
        ("audio", _split(amount(view.audio_seconds)) if view.audio_seconds else None),
        ("speech", f"{100 * speech:.0f}<small> %</small>" if speech is not None else None),
        ("quarantined", f"{view.quarantined:,}"),
        ("left", f"{view.left:,}" if view.left else None),
        ("wall time", _split(brief(report.wall_s)) if report.attempts else None),
        ("× real time", figures(view.speed) if view.speed else None),
        ("GPU time", _split(amount(cost.gpu * 3600)) if cost.gpu else None),
        ("processor time" + (", at least" if cut else ""), _split(amount(cost.cpu * 3600)) if cost.cpu else None),
    ]
    return definitions(pairs, "numbers")


def _split(text: str) -> str:
    """Figures large, units small."""
    return " ".join(word if word[0].isdigit() else f"<small>{escape(word)}</small>" for word in text.split())


def conservation(report: Report) -> str:
    """Where every item is: merged, quarantined, missing; with the sums that prove it."""
    view = report.view
    states = [("merged" if view.exact else "done", view.done, "one"), ("quarantined", view.quarantined, "two")]
    states.append(("missing" if view.exact or view.state != "running" else "to do", view.left, "none"))
    total = max(1, view.items)
    bar = "".join(
        f'<span class="{style}" style="width:{100 * number / total:.3f}%" title="{number:,} {name}"></span>'
        for name, number, style in states
        if number
    )
    legend = " + ".join(
        f'<span class="key"><i class="{style}"></i>{number:,} {name}</span>' for name, number, style in states
    )
    sums = f'<p class="sum"><b>{counted(view.items, "item")}</b> = {legend}</p>'
    return section(_conservation_title(report), f'<div class="stack">{bar}</div>', sums, _proof(report), name="proof")


def _conservation_title(report: Report) -> str:
    view = report.view
    if view.exact:
        return "Every item is accounted for"
    if view.state == "finished":
        return "Every item is settled; the merge is still to come"
    if view.state in ("running", "queued", "planned"):
        return f"{view.left:,} of {counted(view.items, 'item')} are still to be done"
    return f"{view.left:,} of {counted(view.items, 'item')} are missing"


def _proof(report: Report) -> str:
    view, receipt = report.view, report.view.receipt
    steps = "".join(
        f"<li>{code(command)} {escape(why)}</li>" for command, why in commands(view) if "report" not in command
    )
    todo = f'<ul class="steps">{steps}</ul>' if steps else ""
    if receipt is None:
        return f"<p>Counted from what tasks published and said; the proof comes with the merge.</p>{todo}"
    verb = "was" if receipt.rows_read == 1 else "were"
    rows = f"{counted(receipt.rows_read, 'row')} in {counted(receipt.parts, 'part')}"
    explained = f"{rows} {verb} read, and each is explained"
    extra = []
    if receipt.spare:
        extra.append(f"{receipt.spare:,} spare (second tries and twins)")
    if receipt.outside:
        extra.append(f"{receipt.outside:,} of items no longer in the manifest")
    if receipt.differing:
        extra.append(f"{receipt.differing:,} done twice with different results")
    told = f"{explained}: {receipt.merged:,} merged, {receipt.quarantined:,} quarantined" + "".join(
        f", {e}" for e in extra
    )
    return (
        f"<p>{prose(told)}. Merged {spoken(receipt.time)} in the order of the "
        f"manifest, whose SHA-256 is {code(receipt.manifest.sha256[:16] + '…')}.</p>{todo}"
    )


def course(report: Report) -> str:
    """Items over time, and the attempts at every task."""
    if not report.attempts:
        return ""
    along = timeline.axis(report.attempts)
    points = timeline.progress_points(report.files, report.attempts)
    chart = timeline.course(points, report.attempts, along, report.view.items)
    begun = ", then ".join(moment(piece.start) for piece in along.pieces[:4])
    caption = f"Items done (above) and the attempts at every task (below) over the time since {begun}."
    return section(_course_title(report), _legend(report), figure(chart, caption), name="course")


def _course_title(report: Report) -> str:
    cut = sum(attempt.state == CUT_SHORT for attempt in report.attempts)
    lost = [attempt for attempt in report.attempts if attempt.state in ("silent", "died", "failed")]
    wall = clock.spoken(report.wall_s)
    tasks = len({(attempt.launch, attempt.task) for attempt in report.attempts})
    if lost:
        what = {"silent": "fell silent", "died": "died", "failed": "could not go on"}[lost[0].state]
        return (
            f"Task {lost[0].task} {what} on the way" if len(lost) == 1 else f"{len(lost)} tasks fell silent on the way"
        )
    if tasks == 1:
        return f"One task, {wall}"
    ends = sorted(attempt.end for attempt in report.attempts)
    tail = ends[-1] - ends[int(0.9 * (len(ends) - 1))] if len(ends) >= _FEW else 0.0
    if not report.view.left and tail > 0.2 * report.wall_s:
        slowest = max(report.attempts, key=lambda attempt: attempt.end)
        return f"Task {slowest.task} held up the end: nine in ten tasks were through {brief(tail)} earlier"
    if cut:
        which = "One attempt was" if cut == 1 else f"{cut} attempts were"
        return f"{which} cut short and taken up again; {wall} of work in all"
    return f"{tasks} tasks, {wall} of work"


def _legend(report: Report) -> str:
    states = {attempt.state for attempt in report.attempts}
    keys = [
        ("one", "finished", {"finished"}),
        ("live", "at work", {"running", "loading", "starting", "retrying", "waiting"}),
    ]
    keys.append(("two", "cut short or stopped", {CUT_SHORT, "stopped"}))
    keys.append(("bad", "silent, died or failed", {"silent", "died", "failed"}))
    shown = [
        f'<span class="key"><i class="{style}"></i>{name}</span>' for style, name, those in keys if those & states
    ]
    return f'<p class="legend">{" ".join(shown)}</p>' if len(shown) > 1 else ""


def speed(report: Report) -> str:
    """How fast each task was."""
    found = speeds.speeds(report.attempts)
    if len(found) < 2 or not any(each.speed for each in found):
        return ""
    launch = max((attempt.launch for attempt in report.attempts), default=0)
    where = " of the largest launch" if launch else ""
    caption = (
        f"Seconds of audio done in a second of wall time{where}; all attempts, and the loading of the model, included."
    )
    return section(_speed_title(found), figure(speeds.speed_bars(found), caption), name="speed")


def _speed_title(found: list[Speed]) -> str:
    slow = [each for each in found if each.slow]
    well = sorted(each.speed for each in found if not each.slow)
    low, high = figures(well[0]), figures(well[-1])
    spread = f"at {low} × real time" if low == high else f"at {low} to {high} × real time"
    if not slow:
        return f"All {len(found)} tasks ran {spread}"
    nodes = {each.host for each in slow}
    where = f", on {next(iter(nodes))}" if len(nodes) == 1 else ""
    if len(slow) == 1:
        return f"Task {slow[0].task} was slow ({figures(slow[0].speed)} × real time{where}); the others ran {spread}"
    lost = share(len(slow), len(found))
    return f"{len(slow)} tasks ({lost}) were slow{where}; the others ran {spread}"
