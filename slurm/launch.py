"""`./voxarray PIPELINE SOURCE …`: decide first, then commit. A dry run is the same decision without the commitment."""

from __future__ import annotations

import argparse
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, NamedTuple, Optional

from pipelines.core import lock, paths, plan, provenance, store
from pipelines.core.errors import DONE, SOME_FAILED, ClusterNotFit, UsageError, VoxarrayError
from pipelines.core.launches import LaunchRecord
from pipelines.core.pipeline import Parameters, Pipeline
from pipelines.core.run import Run, Wish
from slurm import cluster, environments, profile, request, resources
from slurm.request import Request
from slurm.resources import Description, Setting

_SETUP_WAIT_S = 6 * 3600.0
_TASKS_ON_SLURM = 16


class Decision(NamedTuple):
    """Everything that a command amounts to, before anything is done about it."""

    pipeline: Pipeline
    description: Description
    source: Path
    stem: Optional[Path]
    parameters: Parameters
    where: str
    settings: dict[str, Setting]
    request: Request
    tasks: Optional[int]
    sharding: str
    limit: Optional[int]
    pardon: bool
    fresh: bool
    wait: bool

    @property
    def environment(self) -> str:
        """The environment that the tasks run in."""
        return self.description.environment_for(self.parameters)


def say(text: str) -> None:
    """One message for the user, on standard error: standard output is for results."""
    print(text, file=sys.stderr, flush=True)


def main(pipeline: Pipeline, description: Description, options: argparse.Namespace) -> int:
    """The command of one pipeline; returns the exit status."""
    if pipeline.needs is not None and (needed := pipeline.needs(options)) is not None:
        from slurm import prerequisite

        status = prerequisite.first(needed, options)
        if options.dry_run:
            print(f"Then, once that is done: voxarray {pipeline.name} {options.source} …")
            return status
        if pipeline.needs(options) is not None:
            say(f"That did not come to its end, so {pipeline.name} was not started; the same command goes on.")
            return status or SOME_FAILED
    decision = decide(pipeline, description, options)
    if options.dry_run:
        from slurm import explain

        print(explain.explain(decision))
        return DONE
    return commit(decision)


def decide(pipeline: Pipeline, description: Description, options: argparse.Namespace) -> Decision:
    """Check everything that can be checked without touching the disk."""
    source = paths.absolute(options.source)
    stem = paths.absolute(options.stem) if options.stem else None
    if not source.exists():
        kind = "directory" if pipeline.source == "directory" else "manifest"
        raise UsageError(f"The {kind} {source} does not exist on {provenance.host()}. Check the path.")
    gpus = profile.resolved(description, options)[1]["gpus"].value
    parameters = pipeline.parameters(argparse.Namespace(**{**vars(options), "gpus": gpus}))  # a model may need one
    return decide_how(pipeline, description, options, source=source, stem=stem, parameters=parameters)


def decide_how(
    pipeline: Pipeline,
    description: Description,
    options: argparse.Namespace,
    *,
    source: Path,
    stem: Optional[Path],
    parameters: Parameters,
    pardon: bool = False,
    before: Optional[profile.Profile] = None,
) -> Decision:
    """The part of a decision that a retry shares: where and with what. `before`: in the place of a profile."""
    where = choose_cluster(options.cluster)
    chosen, settings = profile.resolved(description, options, before)
    limit = resources.positive("--limit", options.limit) if options.limit is not None else None
    python = environments.python(description.environment_for(parameters))
    wanted = Request.of(settings, sbatch=chosen.sbatch, sweep=chosen.sweep, limit=limit, python=str(python))
    wanted = fit_to_machine(wanted, settings) if where != "slurm" else wanted
    tasks = resources.positive("--tasks", settings["tasks"].value) if "tasks" in settings else None
    wait = options.wait if options.wait is not None else where != "slurm"
    return Decision(
        pipeline,
        description,
        source,
        stem,
        parameters,
        where,
        settings,
        wanted,
        tasks,
        options.shard,
        limit,
        pardon,
        getattr(options, "fresh", False),
        wait,
    )


def choose_cluster(asked: str) -> str:
    """`slurm`, `local` or `debug`. ClusterNotFit where Slurm was asked for and is not here."""
    if asked not in ("auto", "slurm"):
        return asked
    why = cluster.fitness()
    if why is None:
        return "slurm"
    if asked == "slurm":
        raise ClusterNotFit(
            f"--cluster slurm was asked for, but {why} on {provenance.host()}. Give the command on a login node of "
            "the cluster (after `module load slurm`, where sites need that), or use --cluster local for this machine."
        )
    return "local"


def fit_to_machine(wanted: Request, settings: dict[str, Setting]) -> Request:
    """On this machine a task gets no more cores than there are, unless the command line insists."""
    import msgspec

    from slurm import local

    if settings["cpus"].origin == "command line":
        return wanted
    return msgspec.structs.replace(wanted, cpus=min(wanted.cpus, local.cores()))


def number_of_tasks(decision: Decision, run: Optional[Run]) -> int:
    """What was asked for; else as many as last time; else a number that suits the place."""
    if decision.tasks is not None:
        return decision.tasks
    if decision.where == "debug":
        return 1
    numbers = run.launch_numbers() if run is not None else []
    same = ("slurm", "sbatch") if decision.where == "slurm" else ("local",)
    if run is not None and numbers and run.record(numbers[-1]).cluster in same:
        return run.record(numbers[-1]).tasks
    if decision.where == "slurm":
        return _TASKS_ON_SLURM
    from slurm import local

    return local.slots(decision.request)


class Started(NamedTuple):
    """What became of a decision. `launch`: the one at work, or None where nothing is missing; `ours`: made just now.

    `process`: its pump, where it was started here.
    """

    run: Run
    launch: Optional[LaunchRecord]
    ours: bool
    process: Optional[subprocess.Popen[bytes]]


def commit(decision: Decision) -> int:
    """Make the run and its launch, submit it, and follow it where that was asked for; returns the exit status."""
    return follow(decision, start(decision))


def start(decision: Decision) -> Started:
    """Make the run and its launch, and submit it."""
    refuse_fresh_while_at_work(decision)
    ensure_environment(decision)
    is_new = decision.fresh or existing(decision) is None
    run = Run.create(decision.pipeline, decision.source, decision.stem, decision.parameters, decision.fresh)
    return start_run(decision, run, is_new)


def refuse_fresh_while_at_work(decision: Decision) -> None:
    """Its tasks would go on writing into the folder that is moved aside."""
    from slurm import active

    run = existing(decision)
    busy = active.launch_at_work(run) if run is not None and decision.fresh else None
    if run is not None and busy is not None:
        raise UsageError(f"--fresh cannot move a run aside that is at work. {active.spoken(run, busy)}")


def existing(decision: Decision) -> Optional[Run]:
    """The run of this command, if there is one already."""
    name = plan.run_id(decision.pipeline.name, decision.source, decision.stem, decision.parameters)
    return Run.open(name) if (paths.run_folder(name) / "run.json").exists() else None


def ensure_environment(decision: Decision) -> None:
    """Make the pipeline's environment if it is not there."""
    name = decision.environment
    if not environments.is_ready(name):
        say(f"Environment {name} of {decision.pipeline.name} is not there yet, or its lock has changed; making it.")
        environments.ensure(name)


def start_run(decision: Decision, run: Run, is_new: bool = False) -> Started:
    """Launch what a run lacks. `is_new`: a failure leaves no trace of it."""
    from slurm import active

    # Held until all is submitted: whoever finds a half-submitted launch under this lock knows that its launcher died.
    with lock.held(run.folder / "setup.lock", _SETUP_WAIT_S, f"The set-up of {run.id}"):
        busy = active.launch_at_work(run)
        if busy is not None and not active.is_half_submitted(run, busy):
            say(active.spoken(run, busy))
            return Started(run, run.record(busy), False, None)
        with _no_trace(run, is_new):
            found = new_launch(decision, run) if busy is None else run.record(busy)
        if found is None:
            return Started(run, None, False, None)
        return Started(run, found, True, submit_to(decision, run, found))


def follow(decision: Decision, started: Started) -> int:
    """Follow a run to its end, where that was asked for, or merge what is done; returns the exit status."""
    from slurm import debug, waiting

    if started.launch is None:
        return waiting.finish(started.run)
    if decision.where == "debug" and started.ours:
        return debug.start(started.run, started.launch, decision.request)
    if decision.wait:
        return waiting.wait(started.run, started.launch.number, started.process)
    return DONE


@contextmanager
def _no_trace(run: Run, is_new: bool) -> Iterator[None]:
    """Forget a run that was made by this command and could not be launched: no recordings, a manifest at fault."""
    store.publish(run.folder / "run.json", store.pretty(run.plan))  # it may have been forgotten while this one waited
    try:
        yield
    except VoxarrayError:
        if is_new and not run.launch_numbers():
            for name in ("run.json", "code.diff"):
                (run.folder / name).unlink(missing_ok=True)
        raise


def new_launch(decision: Decision, run: Run) -> Optional[LaunchRecord]:
    """Deal what is missing; None where nothing is."""
    from slurm import local

    wish = Wish(
        number_of_tasks(decision, run),
        decision.sharding,
        cluster="local" if decision.where == "debug" else decision.where,
        limit=decision.limit,
        pardon=decision.pardon,
    )
    left = local.end_leftovers(run)
    if left:
        say(f"{left} tasks of an earlier launch had outlived the process that ran them; they were stopped.")
    record = run.new_launch(wish, say)
    if record is not None:
        where = "Slurm" if decision.where == "slurm" else "this machine"
        say(f"Run {run.id}, launch {record.number}: {record.items:,} items over {record.tasks} tasks ({where}).")
    return record


def submit_to(decision: Decision, run: Run, record: LaunchRecord) -> Optional[subprocess.Popen[bytes]]:
    """Submit a launch to where it was decided to run; the pump's process, where that is this machine."""
    from slurm import local, submit

    if decision.where == "slurm":
        jobs = submit.submit(run, record, decision.request)
        say(f"Submitted: {request.spoken(jobs)}. `./voxarray status {run.id}` shows how far it is.")
        if not decision.wait:
            say(
                f"It needs nothing more from this terminal; its sweep merges into {run.plan.outputs} when all is done."
            )
    if decision.where == "local":
        process = local.start(run, record, decision.request)
        if not decision.wait:
            say(f"It runs on by itself (process {process.pid}). `./voxarray status {run.id}` shows how far it is.")
        return process
    return None
