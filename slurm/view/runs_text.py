"""All runs in one table."""

from __future__ import annotations

from typing import Sequence

from pipelines.core import paths
from slurm.view.standing import Standing
from slurm.view.text import Column, Terminal, table
from slurm.view.words import amount, brief, share

_COLUMNS = [
    Column("run"),
    Column("pipeline", spare=2),
    Column("state"),
    Column("items", right=True),
    Column("done", right=True),
    Column("audio", right=True, spare=1),
    Column("failed", right=True),
    Column("left", right=True, spare=3),
    Column("last sign", right=True),
]
STYLES = {"running": "green", "queued": "yellow", "planned": "yellow", "merged": "dim", "finished": "green"}
"""A run's state → its colour; red where it is none of these."""


def render(views: Sequence[Standing], terminal: Terminal, more: int) -> list[str]:
    """The lines of `status`: newest run first; `more` older ones are not shown."""
    if not views:
        return [
            f"There are no runs under {paths.runs()}.",
            "`./voxarray vad DIRECTORY` makes one from recordings; `./voxarray demo` shows how it goes.",
        ]
    lines = table(terminal, _COLUMNS, [_row(view, terminal) for view in views])
    if more:
        lines.append(terminal.paint(f"… and {more:,} older (--all)", "dim"))
    return [*lines, "", terminal.paint("`./voxarray status RUN` tells more of one.", "dim")]


def _row(view: Standing, terminal: Terminal) -> list[str]:
    return [
        terminal.paint(view.run.id, "bold"),
        view.run.plan.pipeline,
        terminal.paint(view.state, STYLES.get(view.state, "red")),
        f"{view.items:,}",
        share(view.done + view.quarantined, view.items) if view.items else "",
        amount(view.audio_seconds) if view.audio_seconds else "",
        f"{view.quarantined:,}" if view.quarantined else "",
        brief(view.eta_s) if view.eta_s is not None else "",
        f"{brief(view.time - view.last_sign)} ago" if view.last_sign else "",
    ]
