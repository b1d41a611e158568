"""What the live view shows: a line for each run with its bar; below it the tasks and failures of the one in hand."""

from __future__ import annotations

import time
from typing import NamedTuple, Sequence

from pipelines.core.errors import plain
from slurm.view import runs_text
from slurm.view.run_text import most_interesting, sentence
from slurm.view.standing import Standing
from slurm.view.tasks import TaskStanding
from slurm.view.text import Column, Terminal, fit, table
from slurm.view.words import TASK_STATES, brief, counted, figures, share

_BAR, _TASK_BAR = 20, 12
_LEAST_RUNS = 3
_MOST_CAUSES = 6
_RUN_COLUMNS = [
    Column(""),
    Column("step"),
    Column("run", most=40),
    Column("pipeline", spare=5),
    Column("", spare=4),
    Column("done", right=True),
    Column("items", right=True, spare=2),
    Column("failed", right=True),
    Column("× real time", right=True, spare=1),
    Column("left", right=True),
    Column("state"),
]
_TASK_COLUMNS = [
    Column("task", right=True),
    Column("node", spare=3, most=14),
    Column("state", most=22),
    Column("", spare=4),
    Column("items", right=True),
    Column("× real time", right=True, spare=1),
    Column("left", right=True),
    Column("failed", right=True),
    Column("last sign", right=True, spare=2),
]


class Watched(NamedTuple):
    """A run on the screen. `label`: what its caller calls it, as the step of a chain; may be empty."""

    view: Standing
    label: str = ""


class Frame(NamedTuple):
    """What there is to draw. `chosen`: the number of the run in hand; `head`: lines of the caller's above all.

    `unread`: how many runs are left out, as their files cannot be read.
    """

    watched: Sequence[Watched]
    chosen: int
    every_s: float
    head: Sequence[str] = ()
    unread: int = 0


def screen(frame: Frame, terminal: Terminal, rows: int) -> list[str]:
    """The lines of the screen, `rows` at most; what matters less is left out where they do not suffice."""
    last = terminal.paint(_keys(frame), "dim")
    if not frame.watched:
        none = [unread(frame.unread)] if frame.unread else runs_text.render([], terminal, 0)
        return [*frame.head, *none, "", last][:rows]
    lines = [terminal.paint(_title(frame), "bold"), *frame.head]
    lines += _runs(frame, terminal, max(_LEAST_RUNS, (rows - len(lines)) // 2 - 2))
    lines.append("")
    lines += _details(frame.watched[frame.chosen].view, terminal, rows - len(lines) - 2)
    return [*lines[: rows - 2], "", last]


def _title(frame: Frame) -> str:
    at_work = sum(watched.view.state == "running" for watched in frame.watched)
    now = time.strftime("%H:%M:%S")
    left_out = f", {frame.unread:,} unreadable" if frame.unread else ""
    return f"{now}  {counted(len(frame.watched), 'run')}, {at_work} at work{left_out}"


def unread(count: int) -> str:
    """What stands for runs that are left out of a table."""
    return f"{counted(count, 'run')} left out: {'its' if count == 1 else 'their'} files cannot be read."


def _keys(frame: Frame) -> str:
    choose = "up and down choose a run; " if len(frame.watched) > 1 else ""
    return f"q or Ctrl-C leaves, the work goes on; {choose}every {frame.every_s:g} s"


def _runs(frame: Frame, terminal: Terminal, most: int) -> list[str]:
    """The table of runs: those around the one in hand, where all are too many."""
    total = len(frame.watched)
    first = max(0, min(frame.chosen - most // 2, total - most))
    rows = [
        _run(watched, terminal, is_chosen=number == frame.chosen and total > 1)
        for number, watched in enumerate(frame.watched)
    ]
    lines = table(terminal, _RUN_COLUMNS, rows)
    if total <= most:
        return lines
    rest = terminal.paint(f"  {first + 1} to {first + most} of {total}", "dim")
    return [lines[0], *lines[1 + first : 1 + first + most], rest]


def _run(watched: Watched, terminal: Terminal, *, is_chosen: bool) -> list[str]:
    view = watched.view
    settled = view.done + view.quarantined
    return [
        ">" if is_chosen else "",
        watched.label,
        terminal.paint(view.run.id, *(["bold"] if is_chosen else [])),
        view.run.plan.pipeline,
        terminal.bar(settled / view.items if view.items else 0.0, _BAR),
        share(settled, view.items) if view.items else "",
        f"{settled:,}/{view.items:,}",
        terminal.paint(f"{view.quarantined:,}", "red") if view.quarantined else "",
        figures(view.speed) if view.speed else "",
        brief(view.eta_s) if view.eta_s is not None else "",
        terminal.paint(view.state, runs_text.STYLES.get(view.state, "red")),
    ]


def _details(view: Standing, terminal: Terminal, room: int) -> list[str]:
    """The run in hand: how it stands, what keeps it waiting, its tasks at work, its failures by cause."""
    lines = [f"{terminal.paint(view.run.id, 'bold')}  {sentence(view)}"]
    lines += [fit(terminal.paint(plain(note), "yellow"), terminal.width) for note in view.notes[:2]]
    causes = _failures(view, terminal)[: max(2, (room - len(lines)) // 3)]
    lines += _tasks(view, terminal, room - len(lines) - len(causes) - (1 if causes else 0))
    return [*lines, *(["", *causes] if causes else [])]


def _tasks(view: Standing, terminal: Terminal, room: int) -> list[str]:
    busy = [task for task in view.tasks if task.alive or task.unwell]
    most = min(len(busy), room - 1)
    if most < 1:
        return []
    if len(busy) > most:
        most -= 1  # for the line that says so
    shown = most_interesting(busy, most) if len(busy) > most else busy
    lines = table(terminal, _TASK_COLUMNS, [_task(task, terminal) for task in shown]) if shown else []
    if len(shown) < len(busy):
        lines.append(terminal.paint(f"  {len(busy) - len(shown):,} more at work", "dim"))
    return lines


def _task(task: TaskStanding, terminal: Terminal) -> list[str]:
    state = TASK_STATES[task.state] + (", slow" if task.slow else "")
    return [
        str(task.task),
        plain((task.host or "").split(".")[0]),
        terminal.paint(state, "red" if task.unwell else "green"),
        terminal.bar(task.settled / task.dealt if task.dealt else 0.0, _TASK_BAR),
        f"{task.settled:,}/{task.dealt:,}",
        figures(task.speed) if task.speed else "",
        brief(task.eta_s) if task.eta_s is not None else "",
        f"{task.failed:,}" if task.failed else "",
        brief(task.age_s) if task.age_s is not None else "",
    ]


def _failures(view: Standing, terminal: Terminal) -> list[str]:
    causes = view.failures.causes
    if not causes:
        return []
    title = f"failures by cause: {counted(view.failures.items, 'item')}, {view.failures.quarantined:,} given up"
    lines = [terminal.paint(title, "bold")]
    told = (f"{cause.items:>7,} × {plain(cause.signature)}" for cause in causes[:_MOST_CAUSES])
    return [*lines, *(fit(text, terminal.width) for text in told)]


def line(watched: Watched) -> str:
    """A run in one line, for a terminal on which nothing can be redrawn."""
    view, settled = watched.view, watched.view.done + watched.view.quarantined
    parts = [
        f"{settled:,} of {counted(view.items, 'item')} ({share(settled, view.items)})" if view.items else "no items"
    ]
    parts += [f"{view.quarantined:,} failed"] if view.quarantined else []
    parts += [f"{figures(view.speed)} × real time"] if view.speed else []
    parts += [f"about {brief(view.eta_s)} left"] if view.eta_s is not None else []
    name = f"{watched.label}: {view.run.id}" if watched.label else view.run.id
    return f"{name} {view.state}: {', '.join(parts)}"
