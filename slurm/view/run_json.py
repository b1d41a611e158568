"""`status --json`: a stable form for programs. Fields are added, never renamed or removed, while `format` is 1.

One run:
  format 1 · run · pipeline · state (planned, queued, running, finished, merged, incomplete, stalled, cancelled) ·
  says (the state in words) · time (ISO 8601) · items · done · quarantined · left ·
  exact (true: counted by a merge; false: summed over what tasks published and said) ·
  audio_seconds · audio_seconds_expected (or null) · speed (× real time, or null) · eta_s (or null) · wall_s ·
  launches [{launch, cluster, tasks, items, sharding, created}] ·
  tasks [{launch, task, state, host, job, dealt, settled, failed, audio_seconds, audio_seconds_dealt, speed, eta_s,
          last_sign_s, restarts, slow, note}] ·
  failures [{signature, kind, message, items, quarantined, tries, examples, advice}] · failures_complete ·
  notes (what keeps jobs in the queue; what the merge had to say) · outputs (paths) · next (commands)
All runs: {format 1, time, runs [{run, pipeline, state, items, done, quarantined, left, audio_seconds, speed, eta_s,
          created, last_sign_s}], unread (runs whose files could not be read)}, newest first.
Times are seconds, audio too; what is unknown is null.
"""

from __future__ import annotations

from typing import Any

from pipelines.core import clock
from slurm.view.next_steps import commands
from slurm.view.run_text import sentence
from slurm.view.standing import Standing
from slurm.view.tasks import TaskStanding

FORMAT = 1


def run(view: Standing) -> dict[str, Any]:
    """One run."""
    return {
        "format": FORMAT,
        **_brief(view),
        "says": sentence(view),
        "time": clock.iso(view.time),
        "exact": view.exact,
        "audio_seconds_expected": _rounded(view.audio_seconds_expected),
        "wall_s": _rounded(view.wall_s),
        "launches": [
            {
                "launch": record.number,
                "cluster": record.cluster,
                "tasks": record.tasks,
                "items": record.items,
                "sharding": record.sharding,
                "created": record.created,
            }
            for record in view.records
        ],
        "tasks": [_task(task) for task in view.tasks],
        "failures": [
            {
                "signature": cause.signature,
                "kind": cause.kind,
                "message": cause.message,
                "items": cause.items,
                "quarantined": cause.quarantined,
                "tries": cause.tries,
                "examples": [example.path for example in cause.examples if example.path],
                "advice": cause.advice,
            }
            for cause in view.failures.causes
        ],
        "failures_complete": view.failures.complete,
        "notes": view.notes,
        "outputs": [file.path for file in view.receipt.outputs] if view.receipt else [],
        "next": [command for command, _ in commands(view)],
    }


def runs(views: list[Standing]) -> dict[str, Any]:
    """All runs, in the order given."""
    return {"format": FORMAT, "time": clock.iso(), "runs": [_brief(view) for view in views]}


def _brief(view: Standing) -> dict[str, Any]:
    return {
        "run": view.run.id,
        "pipeline": view.run.plan.pipeline,
        "state": view.state,
        "items": view.items,
        "done": view.done,
        "quarantined": view.quarantined,
        "left": view.left,
        "audio_seconds": _rounded(view.audio_seconds),
        "speed": _rounded(view.speed),
        "eta_s": _rounded(view.eta_s),
        "created": view.run.plan.created,
        "last_sign_s": _rounded(view.time - view.last_sign if view.last_sign else None),
    }


def _task(task: TaskStanding) -> dict[str, Any]:
    value = task._asdict()
    value["last_sign_s"] = value.pop("age_s")
    return {name: _rounded(entry) if isinstance(entry, float) else entry for name, entry in value.items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
