"""What to type next, given how a run stands."""

from __future__ import annotations

from slurm.view.standing import Standing

Step = tuple[str, str]
"""A command, and what it is good for."""


def commands(view: Standing) -> list[Step]:
    """The commands that make sense now, the most useful first."""
    name = view.run.id
    steps: dict[str, list[Step]] = {
        "planned": [(" ".join(_again(view)), "launches it")],
        "queued": [
            (f"./voxarray status {name} --watch", "shows it when it begins"),
            (f"./voxarray cancel {name}", "takes it out of the queue; what is done stays"),
        ],
        "running": [
            (f"./voxarray status {name} --watch", "keeps this on the screen"),
            (f"./voxarray logs {name} --follow", "what the tasks say"),
        ],
        "finished": [(f"./voxarray merge {name}", "puts the results together, if no sweep is about to")],
        "merged": [],
        "incomplete": [
            (f"./voxarray retry {name}", f"does the {view.left:,} items that are left, and only them"),
            (f"./voxarray logs {name} --errors", "why the tasks ended"),
            (f"./voxarray merge {name} --partial", "the results so far"),
        ],
        "stalled": [
            (f"./voxarray logs {name}", "the last words of its tasks"),
            (f"./voxarray cancel {name}", "ends them, should they still be in the queue"),
            (f"./voxarray retry {name}", f"does the {view.left:,} items that are left"),
        ],
        "cancelled": [
            (f"./voxarray retry {name}", f"takes it up again: {view.left:,} items are left"),
            (f"./voxarray merge {name} --partial", "the results so far"),
        ],
    }
    found = steps[view.state]
    if view.quarantined and view.state in ("merged", "incomplete", "cancelled"):
        found.append((f"./voxarray retry {name} --quarantined", "tries the quarantined items again"))
    if view.state in ("merged", "incomplete", "finished"):
        found.append((f"./voxarray report {name}", "one page with plots of how it went and what came out"))
    return found


def _again(view: Standing) -> list[str]:
    argv = view.run.plan.argv
    return [f"./{argv[0]}" if argv and argv[0] == "voxarray" else "…", *argv[1:]]
