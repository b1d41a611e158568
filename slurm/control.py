"""`merge`, `retry` and `cancel`: the commands on a run that exists."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Optional, Sequence

from pipelines.core import logs, merge, paths
from pipelines.core.errors import DONE, SOME_FAILED, UsageError
from pipelines.core.run import Run
from slurm import active, cluster, find, flags, launch, merging, request, resources, sweep
from slurm.chain import state as chains
from slurm.profile import Profile
from slurm.request import Jobs

_STOP_WAIT_S = 90.0


def run_merge(arguments: Sequence[str]) -> int:
    """`merge RUN`: put the parts together; refuses where items are missing."""
    parser = flags.Parser(
        prog="voxarray merge",
        description="Merge a run: parts -> outputs, in manifest order, with the proof that nothing is lost.",
    )
    add_run(parser)
    parser.add_argument("--partial", action="store_true", help="merge what there is, though items are missing")
    options = parser.parse(arguments)
    logs.to_stream(sys.stderr, plain=True)
    return merged(find.run(options.run), options.partial)


def merged(run: Run, partial: bool) -> int:
    """Merge, and print the receipt's summary; returns the exit status."""
    receipt = merging.merge(run, partial)
    print(merge.summary(receipt))
    return SOME_FAILED if receipt.quarantined or receipt.missing else DONE


def add_run(parser: argparse.ArgumentParser) -> None:
    """The operand of every command on a run."""
    parser.add_argument(
        "run", metavar="RUN", help="a run's id or its beginning, its outputs' stem, its manifest, or last"
    )


def retry(arguments: Sequence[str]) -> int:
    """`retry RUN`: launch what is missing."""
    logs.to_stream(sys.stderr, plain=True)
    options = _retry_options(arguments)
    run = find.run(options.run)
    from pipelines.core import registry

    folder = registry.folders().get(run.plan.pipeline)
    if folder is None:
        registry.find(run.plan.pipeline)  # raises, naming those that are here
        raise UsageError(f"The pipeline {run.plan.pipeline} of {run.id} is not here.")
    description = resources.describe(folder)
    decision = launch.decide_how(
        run.pipeline,
        description,
        options,
        source=run.manifest,
        stem=None,
        parameters=run.plan.parameters,
        pardon=options.quarantined,
        before=_as_before(run, launch.choose_cluster(options.cluster)) if options.profile is None else None,
    )
    if options.dry_run:
        from slurm import explain

        print(explain.explain(decision, run))
        return DONE
    launch.ensure_environment(decision)
    return launch.follow(decision, launch.start_run(decision, run))


def _retry_options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = flags.Parser(
        prog="voxarray retry",
        description="Launch what is missing of a run; what is done stays done. Tasks get what the last launch there "
        "asked for, but for what these flags, or a --profile, say.",
    )
    add_run(parser)
    parser.add_argument("--quarantined", action="store_true", help="give quarantined items another chance, too")
    flags.add_launch(parser, None, fresh=False)
    return parser.parse(arguments)


def _as_before(run: Run, where: str) -> Optional[Profile]:
    """What the last launch of a run asked for in this place, as a profile; None where the launcher made none there."""
    for number in reversed(run.launch_numbers()):
        jobs = request.read(run, number)
        if jobs is not None and jobs.cluster == where:
            asked = jobs.request
            values = {name: getattr(asked, name) for name in resources.KEYS if hasattr(asked, name)}
            values["mem"] = f"{asked.mem_mb}M"
            settings = {name: value for name, value in values.items() if value is not None}
            return Profile(paths.launch_name(number), settings, dict(asked.sbatch), dict(asked.sweep))
    return None


def cancel(arguments: Sequence[str]) -> int:
    """`cancel RUN`: end its jobs, and keep the sweep from bringing them back; `cancel CHAIN`: all of a chain."""
    parser = flags.Parser(
        prog="voxarray cancel",
        description="End a run's jobs. Tasks publish what they have; that stays, and the same command resumes. "
        "(Tasks that scancel or an accident ended are launched again by the sweep.)",
    )
    add_run(parser)
    options = parser.parse(arguments)
    logs.to_stream(sys.stderr, plain=True)
    chain = chains.find(options.run)
    if chain is not None:
        from slurm.chain import ending

        return ending.cancel(chain)
    run = find.run(options.run)
    ended = cancelled(run)
    if not ended:
        print(f"{run.id} has no jobs at work; there is nothing to cancel.")
        return DONE
    print(f"Cancelled {ended}. What is published stays; `./voxarray retry {run.id}` launches the rest.")
    return DONE


def cancelled(run: Run) -> str:
    """End all jobs of a run that are at work; what was ended, for people."""
    return "; ".join(told for number in run.launch_numbers() if (told := _cancel(run, number)))


def _cancel(run: Run, number: int) -> str:
    """Cancel one launch, if it is at work. The marker comes first: the sweep must see it whatever happens after."""
    jobs = request.read(run, number)
    if jobs is None:
        record = run.record(number)
        return _cancel_plain(run, number, record.job) if record.job else ""
    if not active.is_at_work(jobs):
        return ""
    request.cancel(run, number)
    if jobs.cluster == "local":
        return _cancel_pump(jobs)
    ids = sorted({entry.job_id for entry in active.queued(jobs)})
    cluster.end(ids)
    sweep.conclude(run, number, sweep.CANCELLED, sweep.stopped(run))
    return ", ".join(ids)


def _cancel_plain(run: Run, number: int, job: str) -> str:
    """An array of plain sbatch."""
    if cluster.fitness() is not None or not cluster.queue([job]):
        return ""
    request.cancel(run, number)
    cluster.end([job])
    return job


def _cancel_pump(jobs: Jobs) -> str:
    """Stop a launch on this machine: its pump lets tasks publish, and is given time for it."""
    if jobs.host != socket.gethostname():
        raise UsageError(f"This run is at work on {jobs.host}: give the command there.")
    pids = [int(job.job_id) for job in jobs.jobs if active.is_pump(job.job_id)]
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_WAIT_S
    while any(active.is_pump(str(pid)) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    return ", ".join(f"process {pid}" for pid in pids)
