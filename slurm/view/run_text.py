"""A run in plain text: how it stands, its tasks, its failures, what to type next."""

from __future__ import annotations

from typing import Optional, Sequence

from pipelines.core import clock
from pipelines.core.errors import plain
from slurm import sweep
from slurm.view.next_steps import commands
from slurm.view.standing import Standing
from slurm.view.tasks import TaskStanding
from slurm.view.text import Column, Terminal, fit, table, visible, wrapped
from slurm.view.time_axis import spoken
from slurm.view.words import RUN_STATES, TASK_STATES, amount, brief, counted, figures, share

MOST_TASKS = 40
"""With more tasks than this, only those are shown that a person should look at, and the last to be through."""
_SHOWN = 20
_MOST_CAUSES = 8
_NO_BREAK = "\u00a0"
_HANG = " " * 10
_STYLES = {"running": "green", "merged": "green", "finished": "green", "queued": "yellow", "planned": "yellow"}
_TASK_STYLES = {"finished": "dim", "idle": "dim", "pending": "dim", "queued": "dim"}
_COLUMNS = [
    Column("task", right=True),
    Column("node", spare=3, most=14),
    Column("state", most=22),
    Column("items", right=True),
    Column("", right=True, spare=2),
    Column("audio", right=True, spare=4),
    Column("× real time", right=True, spare=1),
    Column("left", right=True),
    Column("failed", right=True),
    Column("last sign", right=True),
]


def render(view: Standing, terminal: Terminal, all_tasks: bool = False) -> list[str]:
    """The lines of `status RUN`."""
    lines = [*_head(view, terminal), ""]
    if view.tasks:
        lines += [*_tasks(view, terminal, all_tasks), ""]
    if view.failures.causes:
        lines += [*_failures(view, terminal), ""]
    for note in view.notes:
        lines += wrapped(terminal.paint(plain(note), "yellow"), terminal.width, "  ")
    if view.verdict and view.state in ("incomplete", "cancelled", "stalled"):
        lines += [*wrapped(f"The sweep said: {plain(view.verdict.message)}", terminal.width, ""), ""]
    for paragraph in view.damaged[:3]:
        lines += [*wrapped(terminal.paint(plain(paragraph), "red"), terminal.width, "  "), ""]
    return lines + _next(view, terminal)


def _head(view: Standing, terminal: Terminal) -> list[str]:
    plan = view.run.plan
    name = f"{terminal.paint(plan.run_id, 'bold')}  {plan.pipeline}"
    state = terminal.paint(sentence(view), _STYLES.get(view.state, "red"))
    lines = [f"{name}  {state}"]
    if visible(lines[0]) > terminal.width:
        lines = [name, state]
    settled = view.done + view.quarantined
    if view.items and not view.exact:
        width = max(10, min(40, terminal.width - 40))
        bar = terminal.bar(settled / view.items, width)
        lines.append(f"{bar}  {share(settled, view.items)} of {counted(view.items, 'item')}")
    # A number stays on the line of its unit.
    numbers = ", ".join(part.replace(" ", _NO_BREAK) for part in _numbers(view))
    return lines + [line.replace(_NO_BREAK, " ") for line in wrapped(numbers, terminal.width, "")]


def sentence(view: Standing) -> str:
    """The state of the run in one short line."""
    said = RUN_STATES[view.state]
    if view.sweep and view.state == "finished":
        said = "finished, about to be merged"
    if view.state == "queued":
        said = _waiting(view)
    if view.state == "incomplete" and view.verdict and view.verdict.outcome == sweep.LIMITED:
        said = "done as far as --limit asked"
    if view.state == "running":
        at_work = sum(task.alive for task in view.tasks)
        said += f", {counted(at_work, 'task')} at work"
        silent = sum(task.state in ("silent", "died") for task in view.tasks)
        said += f", {silent} silent" if silent else ""
    if view.state in ("merged", "incomplete", "stalled", "cancelled", "finished") and view.last_sign:
        said += f", {view.quarantined:,} quarantined" if view.receipt and view.quarantined else ""
        when = spoken(view.receipt.time) if view.receipt else f"last sign {_ago(view)} ago"
        said += f" ({when})"
    return said


def _waiting(view: Standing) -> str:
    queued = sum(task.state == "queued" for task in view.tasks)
    if not queued and view.sweep:
        return "its tasks have ended; the sweep is about to launch what is missing"
    verb = "waits" if queued == 1 else "wait"
    return f"{counted(queued, 'task')} {verb} in the queue" if queued else RUN_STATES["queued"]


def _ago(view: Standing) -> str:
    return brief(view.time - (view.last_sign or view.time))


def _numbers(view: Standing) -> list[str]:
    """done, given up, left; audio; speed; time left."""
    parts = [f"{view.done:,} done"]
    if view.exact:
        parts = [
            f"{counted(view.items, 'item')} = {view.done:,} merged + {view.quarantined:,} quarantined + 0 missing"
        ]
    else:
        if view.quarantined:
            parts.append(f"{view.quarantined:,} quarantined")
        parts.append(f"{view.left:,} left")
    if view.audio_seconds:
        said = amount(view.audio_seconds)
        if not view.exact and view.audio_seconds_expected:
            exact = view.records[-1].manifest.audio_seconds is not None
            said += f" of {'' if exact else 'about '}{amount(view.audio_seconds_expected)}"
        parts.append(f"{said} of audio")
    if view.speed:
        parts.append(f"{figures(view.speed)} × real time")
    if view.eta_s is not None:
        parts.append(f"about {clock.spoken(view.eta_s)} left")
    elif view.wall_s:
        parts.append(f"{clock.spoken(view.wall_s)} of work")
    return parts


def _tasks(view: Standing, terminal: Terminal, all_tasks: bool) -> list[str]:
    lines = []
    for number in sorted({task.launch for task in view.tasks}):
        record = next(record for record in view.records if record.number == number)
        tasks = [task for task in view.tasks if task.launch == number]
        title = (
            f"launch {number}: {counted(record.items, 'item')} on {counted(record.tasks, 'task')}, {record.cluster}"
        )
        lines.append(terminal.paint(title, "bold"))
        shown = tasks if all_tasks or len(tasks) <= MOST_TASKS else most_interesting(tasks, _SHOWN)
        lines += table(terminal, _COLUMNS, [_row(task, terminal) for task in shown])
        if len(shown) < len(tasks):
            lines.append(terminal.paint(_rest(tasks, shown), "dim"))
    return lines


def most_interesting(tasks: Sequence[TaskStanding], most: int) -> list[TaskStanding]:
    """Tasks that are unwell, then those at work, with failures and the last to be through first; in task order.

    Where all have ended well: the slowest few.
    """

    def weight(task: TaskStanding) -> tuple[bool, bool, float]:
        return task.unwell, bool(task.failed), task.eta_s or 0.0

    chosen = sorted((task for task in tasks if task.unwell or task.alive), key=weight, reverse=True)[:most]
    if not chosen:
        chosen = sorted(tasks, key=lambda task: task.speed or 0.0)[: most // 4]
    return sorted(chosen, key=lambda task: task.task)


def _rest(tasks: Sequence[TaskStanding], shown: Sequence[TaskStanding]) -> str:
    counts: dict[str, int] = {}
    for task in tasks:
        counts[TASK_STATES[task.state]] = counts.get(TASK_STATES[task.state], 0) + 1
    told = ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items(), key=lambda pair: -pair[1]))
    return f"{len(shown)} of {len(tasks):,} tasks are shown (--tasks: all). In all: {told}."


def _row(task: TaskStanding, terminal: Terminal) -> list[str]:
    state = TASK_STATES[task.state]
    if task.slow:
        state += ", slow"
    if task.note:
        state += f" ({task.note})"
    style = "red" if task.unwell else _TASK_STYLES.get(task.state, "green")
    busy = task.alive or task.settled > 0
    return [
        str(task.task),
        plain((task.host or "").split(".")[0]),
        terminal.paint(fit(plain(state), 22), style),
        f"{task.settled:,}/{task.dealt:,}",
        share(task.settled, task.dealt) if task.dealt else "",
        amount(task.audio_seconds) if task.audio_seconds else "",
        figures(task.speed) if task.speed and busy else "",
        brief(task.eta_s) if task.eta_s is not None else "",
        f"{task.failed:,}" if task.failed else "",
        brief(task.age_s) if task.age_s is not None else "",
    ]


def _failures(view: Standing, terminal: Terminal) -> list[str]:
    failures = view.failures
    again = failures.items - failures.quarantined
    head = []
    if failures.quarantined or view.quarantined:
        head.append(f"{counted(view.quarantined if view.exact else failures.quarantined, 'item')} quarantined")
    if again:
        head.append(f"{counted(again, 'item')} failed once" + (" and done later" if view.exact else ""))
    title = f"failures: {', '.join(head)}" + ("" if failures.complete else " (of the newest parts alone)")
    lines = [terminal.paint(title, "bold")]
    for cause in failures.causes[:_MOST_CAUSES]:
        first, *rest = wrapped(plain(cause.signature), terminal.width, _HANG)
        lines += [f"{cause.items:>7,} × {first[len(_HANG) :]}", *rest]
        example: Optional[str] = next((example.path for example in cause.examples if example.path), None)
        if example:
            lines.append(f"{_HANG}e.g. {plain(example)}")
        lines += [terminal.paint(line, "dim") for line in wrapped(cause.advice, terminal.width, _HANG)]
    if len(failures.causes) > _MOST_CAUSES:
        lines.append(f"{_HANG}… and {len(failures.causes) - _MOST_CAUSES} causes more; `report` shows them")
    return lines


def _next(view: Standing, terminal: Terminal) -> list[str]:
    steps = commands(view)
    width = max((len(command) for command, _ in steps), default=0)
    lines = [terminal.paint("next", "bold")] if steps else []
    for command, why in steps:
        if width + 6 + len(why) <= terminal.width:
            lines.append(f"  {command:<{width}}  {terminal.paint(why, 'dim')}")
        else:
            lines += [
                f"  {command}",
                *(terminal.paint(line, "dim") for line in wrapped(why, terminal.width, "      ")),
            ]
    return lines
