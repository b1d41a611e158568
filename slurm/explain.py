"""A dry run: the exact plan of a command, in words and numbers. Nothing of the user's is changed.

The items are listed, accounted for and dealt by the same code as in earnest, with the listing of a directory in a
temporary folder.
"""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import NamedTuple, Optional

from pipelines.core import ledger, paths, plan
from pipelines.core.plan import Plan
from pipelines.core.run import Run, Wish
from pipelines.core.shard import imbalance
from slurm import cluster, environments, launch, resources, submit
from slurm.launch import Decision
from slurm.request import Request


class Preview(Run):
    """A run that may not exist yet, with its listing somewhere else."""

    def __init__(self, run_plan: Plan, listing: Optional[Path]) -> None:
        super().__init__(run_plan)
        self._listing = listing

    @property
    def manifest(self) -> Path:
        """The manifest that would be dealt."""
        return self._listing or super().manifest


class Forecast(NamedTuple):
    """What a launch would deal. `seconds` is each task's audio, 0 where unknown."""

    items: int
    done: int
    quarantined: int
    counts: list[int]
    seconds: list[float]
    notes: list[str]


def explain(decision: Decision, run: Optional[Run] = None) -> str:
    """The plan of a decision (of an existing run, for a retry), as lines of text."""
    existing = run or (None if decision.fresh else launch.existing(decision))
    run_plan = existing.plan if existing else _draft(decision)
    tasks = launch.number_of_tasks(decision, existing)
    with tempfile.TemporaryDirectory(prefix="voxarray-") as folder:
        listing = Path(folder) / "listing.jsonl" if decision.pipeline.lists else None
        preview = Preview(run_plan, listing)
        if decision.fresh:
            preview.folder = Path(folder) / "fresh"
        forecast = _forecast(decision, preview, tasks)
    rows = [*_what(decision, run_plan, existing), *_work(decision, forecast, tasks), *_where(decision)]
    lines = ["Dry run: this is what would be done; nothing was changed.", ""]
    lines += [f"{name:12} {text}" for name, text in rows]
    used = sum(1 for count in forecast.counts if count)
    if decision.where == "slurm" and used:
        lines += _scripts(preview, decision.request, used)
    return "\n".join(lines)


def _draft(decision: Decision) -> Plan:
    return plan.draft(decision.pipeline, decision.source, decision.stem, decision.parameters)[0]


def _forecast(decision: Decision, run: Run, tasks: int) -> Forecast:
    wish = Wish(tasks, decision.sharding, limit=decision.limit, pardon=decision.pardon)
    counts, seconds = [0] * tasks, [0.0] * tasks
    with run.scan(relist=True, sizes=decision.sharding != "round-robin") as scan:
        account = run.account(scan)
        states = account.states
        if decision.pardon:
            states = states.replace(bytes([ledger.QUARANTINED]), bytes([ledger.MISSING]))
        for task, item in run._assignments(wish, states):  # noqa: SLF001 - the engine's own deal, without its files
            counts[task] += 1
            seconds[task] += item.duration or 0.0
        return Forecast(scan.identity.items, account.done, account.quarantined, counts, seconds, scan.notes)


def outputs(decision: Decision, run_plan: Plan) -> str:
    """What the run would leave, in words."""
    if not decision.pipeline.results:
        return f"{run_plan.outputs}{'.*' if decision.pipeline.source == 'directory' else ''}"
    left = decision.pipeline.results_of(run_plan).values()
    return ", ".join(each for each in left if each != run_plan.source or decision.pipeline.extends)


def _what(decision: Decision, run_plan: Plan, run: Optional[Run]) -> list[tuple[str, str]]:
    numbers = run.launch_numbers() if run else []
    standing = f"exists, with {len(numbers)} launches so far" if run else "new"
    if decision.fresh and paths.run_folder(run_plan.run_id).exists():
        standing = "new; the earlier one's folder would be moved aside (--fresh)"
    values = " ".join(f"{key}={value}" for key, value in sorted(run_plan.parameters.items()))
    return [
        ("run", f"{run_plan.run_id} ({standing})"),
        ("launch", f"{(numbers or [-1])[-1] + 1}"),
        ("pipeline", f"{run_plan.pipeline}: {decision.pipeline.summary}"),
        ("source", f"{run_plan.source} ({decision.pipeline.source})"),
        ("parameters", values or "none"),
        ("outputs", outputs(decision, run_plan)),
        ("run folder", str(paths.run_folder(run_plan.run_id))),
        ("logs", str(paths.home() / "logs" / run_plan.run_id)),
    ]


def _work(decision: Decision, forecast: Forecast, tasks: int) -> list[tuple[str, str]]:
    to_do = sum(forecast.counts)
    used = [count for count in forecast.counts if count]
    rows = [
        (
            "items",
            f"{forecast.items:,}: {forecast.done:,} done, {forecast.quarantined:,} quarantined, {to_do:,} to do"
            + (f" (--limit {decision.limit:,})" if decision.limit else ""),
        )
    ]
    if not to_do:
        return [*rows, ("tasks", "none: every item is accounted for, so the run would only be merged")]
    loads = forecast.seconds if any(forecast.seconds) else [float(count) for count in forecast.counts]
    unit = f"{sum(forecast.seconds) / 3600:,.2f} h of audio" if any(forecast.seconds) else "durations not known yet"
    spread = f"{min(used):,}" if min(used) == max(used) else f"{min(used):,} to {max(used):,}"
    text = (
        f"{tasks:,} ({decision.sharding}), {len(used):,} of them with items: {spread} items each, {unit}; "
        f"the longest has {imbalance(loads[: len(used)]):.2f} × the mean"
    )
    rows.append(("tasks", text))
    return rows + [("note", note) for note in forecast.notes]


def _where(decision: Decision) -> list[tuple[str, str]]:
    from slurm import local

    wanted, name = decision.request, decision.environment
    digest = environments.lock_digest(name)
    ready = "ready" if environments.is_ready(name) else "not there yet, would be made first"
    where = {
        "slurm": "Slurm",
        "local": f"this machine, at most {local.slots(wanted)} tasks at a time (it has {local.cores()} cores)",
        "debug": "this machine, in one process",
    }
    settings = [f"{key} {setting.value} ({setting.origin})" for key, setting in decision.settings.items()]
    return [
        ("where", where[decision.where]),
        ("settings", ", ".join(settings)),
        (
            "a task gets",
            f"{wanted.cpus} cores, {wanted.mem_mb:,} MB, {wanted.gpus} GPUs, {resources.clock(wanted.time)}",
        ),
        ("environment", f"{name} in {environments.prefix(name)} ({ready}; lock {digest[:12] if digest else 'none'})"),
        ("sweep", f"merges when all is done; else launches what is missing, {wanted.rounds} rounds at most"),
        ("afterwards", "waits and shows progress" if decision.wait else "returns at once; the run goes on by itself"),
    ]


def _scripts(run: Run, wanted: Request, tasks: int) -> list[str]:
    """The arrays, and the scripts that sbatch would be given."""
    arrays = submit.chunks(tasks, cluster.max_array_size())
    number = (run.launch_numbers() or [-1])[-1] + 1
    where = submit.folder(run, number)
    lines = ["", f"{len(arrays)} array{'s' if len(arrays) > 1 else ''}, then the sweep after all of them:"]
    shares = submit.parallel(wanted.max_parallel, arrays)
    lines += [
        f"  tasks {first} to {first + count - 1}, {most} at a time" for (first, count), most in zip(arrays, shares)
    ]
    example = submit.order(run, number, 0, wanted)
    lines += ["", f"Each task runs slurm.job.run_task({shlex.quote(example)}) and so on, by this script:", ""]
    values = {**submit.parameters(run, number, wanted), "array_parallelism": shares[0]}
    lines += _indented(submit.script(where, wanted, values, arrays[0][1]))
    lines += ["", "The sweep:", ""]
    lines += _indented(submit.script(where, wanted, submit.sweep_parameters(run, number, wanted, ["<arrays>"]), 1))
    return lines


def _indented(text: str) -> list[str]:
    return [f"    {line}".rstrip() for line in text.strip().splitlines()]
