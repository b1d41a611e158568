"""What a chain would do: each step's command, what it waits and asks for, and its items where they are known."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import Optional

from pipelines.core import plan as core_plan
from pipelines.core.errors import VoxarrayError
from slurm import environments, launch, resources
from slurm import explain as one
from slurm.chain import beforehand, doing, state
from slurm.chain.plan import Link
from slurm.chain.state import Order


def explain_link(order: Order, link: Link, results: dict[str, dict[str, str]]) -> list[tuple[str, str]]:
    """The rows of one step; adds what it would leave to `results`."""
    rows = [("after", ", ".join(link.after) or "nothing: it starts at once")]
    if link.is_tool:
        results[link.name] = {"output": str(state.output_path(order.id, link.name))}
        return [("command", f"voxarray {shlex.join(link.words)}"), *rows, ("where", "beside the chain; seconds")]
    try:
        command = doing.words(link, results)
    except KeyError as open_reference:
        rows.insert(0, ("command", f"voxarray {shlex.join(link.words)}"))
        return [*rows, ("items", f"known once {open_reference.args[0]} is done"), *_asked(order, link)]
    rows.insert(0, ("command", f"voxarray {shlex.join(command)}"))
    try:
        with beforehand.at_home():
            found = doing.given(order, link, command)
    except VoxarrayError as error:
        if not link.after:
            raise
        # what is missing now may be what the steps before it will have made
        verb = "is" if len(link.after) == 1 else "are"
        why = f"known once {' and '.join(link.after)} {verb} done. As things stand: {error}"
        return [*rows, ("items", why), *_asked(order, link)]
    decision = found.decision
    if found.needed is not None:
        rows.append(("first", f"voxarray {shlex.join(found.needed)}"))
        return [*rows, *_asked(order, link)]
    run_plan = core_plan.draft(decision.pipeline, decision.source, decision.stem, decision.parameters)[0]
    results[link.name] = dict(decision.pipeline.results_of(run_plan))
    rows += [("items", _items(decision) or "known once the steps before it are done")]
    rows += [("outputs", one.outputs(decision, run_plan))]
    return [*rows, *_where(order, decision)]


def _items(decision: launch.Decision) -> Optional[str]:
    existing = launch.existing(decision)
    run_plan = existing.plan if existing else one._draft(decision)  # noqa: SLF001
    tasks = launch.number_of_tasks(decision, existing)
    try:
        with tempfile.TemporaryDirectory(prefix="voxarray-") as folder:
            listing = Path(folder) / "listing.jsonl" if decision.pipeline.lists else None
            forecast = one._forecast(decision, one.Preview(run_plan, listing), tasks)  # noqa: SLF001
    except VoxarrayError:
        return None
    given_up = f", {forecast.quarantined:,} quarantined" if forecast.quarantined else ""
    return f"{forecast.items:,}: {forecast.done:,} done{given_up}, {sum(forecast.counts):,} to do over {tasks} tasks"


def _where(order: Order, decision: launch.Decision) -> list[tuple[str, str]]:
    wanted, name = decision.request, decision.environment
    ready = "" if environments.is_ready(name) else " (not there yet, would be made first)"
    partition = f", partition {wanted.partition}" if wanted.partition else ""
    place = "Slurm" if order.where == "slurm" else "this machine"
    text = f"{wanted.cpus} cores, {wanted.mem_mb:,} MB, {wanted.gpus} GPUs, {resources.clock(wanted.time)}"
    return [("a task gets", f"{text} on {place}{partition}"), ("environment", f"{name}{ready}")]


def _asked(order: Order, link: Link) -> list[tuple[str, str]]:
    """What a step asks for whose command cannot be judged yet."""
    description, wanted = beforehand.asked(link, order.flags)
    text = f"{wanted.cpus} cores, {wanted.mem_mb:,} MB, {wanted.gpus} GPUs, {resources.clock(wanted.time)}"
    return [("a task gets", text), ("environment", description.environment)]


def explain_rows(order: Order) -> list[tuple[str, list[tuple[str, str]]]]:
    """The rows of every step."""
    results: dict[str, dict[str, str]] = {}
    return [(link.name, explain_link(order, link, results)) for link in order.links]


def explain(order: Order) -> str:
    """The whole dry run as text."""
    lines = [f"Dry run of {order.id}: {order.title}. Nothing was changed."]
    for number, (name, rows) in enumerate(explain_rows(order), 1):
        lines += ["", f"{number}. {name}", *(f"   {key:12} {text}" for key, text in rows)]
    return "\n".join(lines)
