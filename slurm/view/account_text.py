"""The account of runs for people: what they cost, asked for against used, what went into nothing, and advice."""

from __future__ import annotations

from typing import Optional, Sequence

from slurm.view.account import Account
from slurm.view.account_advice import advice, gigabytes
from slurm.view.account_cost import Cost, cost
from slurm.view.text import Column, Terminal, table, wrapped
from slurm.view.words import amount, counted, figures, share

_USE = [Column(""), Column("asked for"), Column("used"), Column("share", right=True, spare=1)]
_WASTE = [Column("without results"), Column("time", right=True), Column("share", right=True), Column("", spare=1)]
_RUNS = [
    Column("run"),
    Column("pipeline", spare=3),
    Column("audio", right=True),
    Column("processor h", right=True),
    Column("used", right=True, spare=2),
    Column("GPU h", right=True),
    Column("an audio hour", right=True),
    Column("GPU", right=True, spare=1),
]


def render(accounts: Sequence[Account], terminal: Terminal) -> list[str]:
    """The lines of `account RUN…`; with several runs, a table of them and their total at the end."""
    lines: list[str] = []
    for found in accounts:
        lines += [*_one(found, terminal), ""]
    return [*lines, *_total(accounts, terminal)] if len(accounts) > 1 else lines[:-1]


def _one(found: Account, terminal: Terminal) -> list[str]:
    made = [counted(found.items, "item")]
    if found.audio_seconds:
        made.append(f"{amount(found.audio_seconds)} of audio")
    how = f"{counted(found.tasks, 'task')}, {counted(found.attempts, 'attempt')}, "
    how += counted(found.launches, "launch", "launches")
    state = "  (at work: so far)" if found.at_work else ""
    lines = [f"{terminal.paint(found.run, 'bold')}  {found.pipeline}  {', '.join(made)}{state}", how, ""]
    if not found.cost.time_s:
        return [*lines, "No task of it has worked yet, as far as files and scheduler tell."]
    lines += wrapped(_price(found.cost, found.audio_seconds, found.items), terminal.width, "")
    lines += ["", *table(terminal, _USE, _use(found))]
    lines += ["", *table(terminal, _WASTE, _waste(found))]
    words = advice(found)
    lines += [""]
    for word in words or ["Nothing stands out that another request would mend."]:
        lines += wrapped(terminal.paint(word, "green" if words else "dim"), terminal.width, "")
    for sentence in sources(found):
        lines += [terminal.paint(line, "dim") for line in wrapped(sentence, terminal.width, "")]
    return lines


def _price(found: Cost, audio_seconds: float, items: int) -> str:
    """What an hour of audio cost; of what has no audio, an item."""
    of, what = (audio_seconds / 3600, "An hour of audio") if audio_seconds else (float(items), "An item")
    if not of:
        return "Nothing is done yet that its cost could be shared by."
    parts = []
    if found.cpu_s is not None:
        parts.append(f"{_hours(found.cpu_s / of)} processor hours")
    if found.used_s is not None:
        parts.append(f"{_hours(found.used_s / of)} of processor time used")
    if found.gpu_s is not None:
        parts.append(f"{_hours(found.gpu_s / of)} GPU hours")
    return f"{what} cost {', '.join(parts) or 'an unknown amount'}."


def _hours(seconds: Optional[float]) -> str:
    return "–" if seconds is None else figures(seconds / 3600)


def _use(found: Account) -> list[list[str]]:
    """Asked for against used: a row for each kind of resource of which something is known."""
    has = found.cost
    a_task = f" ({figures(has.used_cpus, 2)} a task)" if has.used_cpus is not None else ""
    rows = [
        [
            "processors",
            f"{amount(has.cpu_s)} ({has.cpus} a task)" if has.cpu_s is not None else "not known",
            f"{amount(has.used_s)}{a_task}" if has.used_s is not None else "not known",
            share(has.used_share, 1) if has.used_share is not None else "",
        ]
    ]
    if has.gpu_s:
        rows.append(["GPUs", f"{amount(has.gpu_s)} ({has.gpus} a task)", "not known", ""])
    if has.mem_mb:
        most = f"{gigabytes(has.rss_mb)} at most" if has.rss_mb else "not known"
        rows.append(["memory", gigabytes(has.mem_mb), most, share(has.rss_mb, has.mem_mb) if has.rss_mb else ""])
    if has.limit_s:
        rows.append(
            [
                "time limit",
                amount(has.limit_s),
                f"{amount(has.longest_s)} at most",
                share(has.longest_s, has.limit_s),
            ]
        )
    return rows


def _waste(found: Account) -> list[list[str]]:
    """Where the time of the tasks went that came to no result; the rest went into items."""
    whole, waste = found.cost.time_s, found.waste
    rows = []

    def row(name: str, seconds: Optional[float], told: str) -> None:
        if seconds is not None:
            rows.append([name, amount(seconds), share(seconds, whole), told])

    row(
        "loading",
        waste.loading_s,
        f"before the first item; estimated from {waste.loading_of} of {found.attempts} attempts",
    )
    row("around", waste.around_s, "jobs held before, between and after the attempts")
    row("lost", waste.lost_s, f"{counted(waste.cut_short, 'attempt')} cut short, after the last part")
    if found.cost.used_share is not None and found.cost.used_of_cpu_s:
        idle = max(0.0, 1 - found.cost.used_share)
        rows.append(["idle", "", share(idle, 1), "of the processors held, loading and waiting included"])
    if waste.padding is not None:
        rows.append(["padding", "", share(waste.padding, 1), "of what was computed"])
    if waste.tries or waste.spare:
        spare = f"; {counted(waste.spare, 'row')} more than were needed" if waste.spare else ""
        rows.append(["retries", counted(waste.tries, "try", "tries"), "", f"of items that failed{spare}"])
    if found.cost.sweep_cpu_s:
        rows.append(["sweeps", amount(found.cost.sweep_cpu_s), "", "of one processor, beside the tasks"])
    return rows


def sources(found: Account) -> list[str]:
    """Which figures are sacct's, and which the run's own."""
    its = found.sources
    said = []
    if its.sacct:
        of = f" of {counted(its.sacct, 'task')}" if its.files else ""
        said.append(f"Times, processors, GPUs and memory{of} are from sacct.")
    if its.files:
        why = f" ({its.silence})" if its.silence and not its.sacct else ""
        what = "Times" if not its.sacct else f"Times of {counted(its.files, 'task')}"
        said.append(
            f"{what} are from heartbeats and parts{why}, what was asked for from the launch: of an attempt that was "
            "killed they know only what it published, and of memory nothing."
        )
    if its.used == "sacct":
        said.append("Processor time is from sacct.")
    elif its.used is not None:
        where = "heartbeats" if its.used == "heartbeats" else "sacct and, where that has none, from heartbeats"
        said.append(
            f"Processor time is from {where}: of the task's own process and of programs that have ended, not of those "
            "still at work (the processes of several GPUs)."
        )
    return said


def _total(accounts: Sequence[Account], terminal: Terminal) -> list[str]:
    """A row a run, and what they come to."""
    rows = [_row(found.run, found.pipeline, found.audio_seconds, found.cost) for found in accounts]
    whole = cost([stretch for found in accounts for stretch in found.held])
    return table(terminal, _RUNS, [*rows, _row("total", "", audio_of(accounts), whole)])


def audio_of(accounts: Sequence[Account]) -> float:
    """Seconds of audio that several runs took together.

    Different pipelines are taken for links of a chain, which hear the same recordings; runs of one pipeline are not.
    """
    by_pipeline: dict[str, float] = {}
    for found in accounts:
        by_pipeline[found.pipeline] = by_pipeline.get(found.pipeline, 0.0) + found.audio_seconds
    return max(by_pipeline.values(), default=0.0)


def _row(name: str, pipeline: str, audio: float, its: Cost) -> list[str]:
    hours = audio / 3600
    return [
        name,
        pipeline,
        amount(audio) if audio else "",
        _hours(its.cpu_s),
        _hours(its.used_s),
        _hours(its.gpu_s),
        f"{_hours(its.cpu_s / hours)} h" if hours and its.cpu_s is not None else "–",
        f"{_hours(its.gpu_s / hours)} h" if hours and its.gpu_s else "",
    ]
