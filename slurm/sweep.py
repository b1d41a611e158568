"""The sweep: what happens once every task of a launch has ended, however it ended.

It trusts what is on disk and nothing else. Where every item is accounted for it merges; else it launches what is
missing once more, with a sweep of its own, a few rounds at most; else it says what is missing and how to go on. It
needs no live launcher: on Slurm it is a job that depends (`afterany`) on the arrays; on this machine the launch's pump
does it.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Callable, Optional, Sequence

import msgspec

from pipelines.core import clock, heartbeat, lock, logs, merge, paths, provenance, store
from pipelines.core.errors import (
    DONE,
    SOME_FAILED,
    USAGE,
    ClusterNotFit,
    IncompleteRunError,
    VoxarrayError,
)
from pipelines.core.launches import LaunchRecord
from pipelines.core.run import Run, Wish
from slurm import merging, request
from slurm.request import Jobs, Request

log = logging.getLogger(__name__)

MERGED, RESUBMITTED, GAVE_UP, CANCELLED, LIMITED, LEFT = (
    "merged",
    "resubmitted",
    "gave up",
    "cancelled",
    "limited",
    "left",
)
_WAIT_S = 3600.0

Submit = Callable[[Run, LaunchRecord, Request], object]
"""How a launch that the sweep makes gets to work."""


class Verdict(msgspec.Struct, frozen=True):
    """`state/launch-NNN/sweep.json`: what the sweep of a launch did. `next`: the launch it made, if it made one.

    outcome: merged; resubmitted; gave up (the message says what is missing and how to go on); cancelled; limited (what
    --limit asked for is done, the rest was not asked for); left (a later launch has taken over; not written).
    """

    launch: int
    outcome: str
    message: str
    time: str
    next: Optional[int] = None
    quarantined: int = 0

    @property
    def exit_status(self) -> int:
        """The command's exit status that this amounts to."""
        return DONE if self.outcome in (MERGED, LEFT) and not self.quarantined else SOME_FAILED


def verdict_path(run: Run, launch: int) -> Path:
    """Where the verdict of a launch's sweep lies."""
    return run.state_folder(launch) / "sweep.json"


def read(run: Run, launch: int) -> Optional[Verdict]:
    """The verdict of a launch's sweep; None before there is one."""
    try:
        return msgspec.json.decode(verdict_path(run, launch).read_bytes(), type=Verdict)
    except (OSError, msgspec.MsgspecError):
        return None


def settle(run: Run, launch: int, submit: Submit) -> Verdict:
    """Merge, or launch what is missing, or give up. Idempotent; of two sweeps at once, one waits for the other."""
    with lock.held(run.folder / "sweep.lock", _WAIT_S, f"The sweep of {run.id}"):
        last = run.launch_numbers()[-1]
        verdict = _decide(run, launch) if last == launch else _later(run, launch, last)
        if verdict.outcome == RESUBMITTED and verdict.next is not None:
            verdict = _submitted(run, verdict, submit)
        if verdict.outcome != LEFT:
            store.write_json(verdict_path(run, launch), verdict)
    return verdict


def _submitted(run: Run, verdict: Verdict, submit: Submit) -> Verdict:
    """Submit the launch that was made; where that fails, the sweep has to give up."""
    before = request.read(run, verdict.launch)
    try:
        submit(run, run.record(verdict.next or 0), before.request if before else Request())
    except ClusterNotFit as error:
        message = f"{verdict.message} It could not be submitted from {provenance.host()}: {error}"
        return msgspec.structs.replace(verdict, outcome=GAVE_UP, message=message)
    return verdict


def _later(run: Run, launch: int, last: int) -> Verdict:
    """A later launch exists. If a sweep of this launch made it and died submitting it, that is to be finished."""
    jobs = request.read(run, last)
    unfinished = jobs is None or jobs.state == request.SUBMITTING
    if run.record(last).sweep_round and unfinished and not request.is_cancelled(run, launch):
        return Verdict(launch, RESUBMITTED, f"launch {last} was made by an earlier sweep.", clock.iso(), next=last)
    return Verdict(launch, LEFT, f"launch {last} has taken over.", clock.iso(), next=last)


def _decide(run: Run, launch: int) -> Verdict:
    jobs = request.read(run, launch)
    try:
        receipt = merging.merge(run, if_due=True)
    except IncompleteRunError as error:
        return _incomplete(run, run.record(launch), jobs.request if jobs else Request(), str(error))
    except VoxarrayError as error:
        return Verdict(launch, GAVE_UP, f"The merge did not come about. {error}", clock.iso())
    except Exception as error:
        # A defect; whoever waits for this run must hear of it, and what is published is safe.
        log.exception("The merge of %s failed.", run.id)
        told = f"The merge failed ({type(error).__name__}: {error}); the log is in {paths.logs(run.id, launch)}."
        return Verdict(launch, GAVE_UP, f"{told} What is published stays: `./voxarray merge {run.id}`.", clock.iso())
    summary = merge.summary(receipt)
    return Verdict(launch, MERGED, summary, clock.iso(), quarantined=receipt.quarantined)


def _incomplete(run: Run, record: LaunchRecord, wanted: Request, why: str) -> Verdict:
    """Items are missing (`why` names them): whether to launch them once more."""
    limit = None if wanted.limit is None else left_of(run, record)
    if request.is_cancelled(run, record.number):
        return Verdict(record.number, CANCELLED, stopped(run), clock.iso())
    if limit == 0:
        outcome, told = LIMITED, f"The {record.items:,} items that --limit asked for are done."
    elif record.sweep_round >= wanted.rounds:
        outcome, told = GAVE_UP, f"Items are missing still, after {record.sweep_round} more rounds. {_look(run)}"
    elif _is_barren(run, record):
        outcome, told = (
            GAVE_UP,
            f"Two launches in a row did not do a single item; a third would not either. {_look(run)}",
        )
    else:
        return _again(run, record, limit, why)
    return Verdict(record.number, outcome, f"{told} {why}", clock.iso())


def stopped(run: Run) -> str:
    """What to know about a run that was cancelled."""
    return f"{run.id} was stopped; what is published stays. The same command, or `./voxarray retry {run.id}`, goes on."


def _look(run: Run) -> str:
    return f"`./voxarray logs {run.id} --errors` tells why."


def _again(run: Run, record: LaunchRecord, limit: Optional[int], why: str) -> Verdict:
    wish = Wish(
        record.tasks,
        record.sharding,
        cluster=record.cluster,
        sweep_round=record.sweep_round + 1,
        limit=limit,
        relist=False,
    )
    made = run.new_launch(wish)
    if made is None:
        return Verdict(record.number, GAVE_UP, why, clock.iso())
    changed = merge.changed_since(record, made.manifest)
    message = f"{changed}{made.items:,} items are missing; launch {made.number} does them (round {made.sweep_round})."
    return Verdict(record.number, RESUBMITTED, message, clock.iso(), next=made.number)


def left_of(run: Run, record: LaunchRecord) -> int:
    """Items dealt in a launch whose tasks have not ended, less what those tasks say they settled."""
    state, left = run.state_folder(record.number), 0
    for task, share in enumerate(run.deal(record.number).shares):
        if share.items and heartbeat.read_end(state, task) is None:
            beat = heartbeat.read(state, task)
            left += max(1, share.items - (beat.settled if beat else 0))
    return left


def _is_barren(run: Run, record: LaunchRecord) -> bool:
    """Whether this launch and the one before it published nothing."""
    if not record.sweep_round or not record.number:
        return False
    return not any(any(run.parts_folder(number).glob("*.jsonl")) for number in (record.number, record.number - 1))


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """`python -m slurm.sweep RUN [--launch N]`: the sweep as a job; submits the launch it makes."""
    parser = argparse.ArgumentParser(prog="python -m slurm.sweep", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="the run's id")
    parser.add_argument(
        "--launch", type=int, default=None, help="the launch whose tasks have ended (default: the last)"
    )
    options = parser.parse_args(arguments)
    logs.to_stream(sys.stderr)
    try:
        run = Run.open(options.run)
        numbers = run.launch_numbers()
        if not numbers:
            log.error("%s has no launch yet; `./voxarray %s …` makes one.", run.id, run.plan.pipeline)
            return USAGE
        launch = numbers[-1] if options.launch is None else options.launch
        logs.to_file(paths.logs(run.id, launch) / "sweep.log")
        return sweep(run, launch)
    except VoxarrayError as error:
        log.error("%s", error)  # noqa: TRY400 - the paragraph says it all
        return error.exit_status


def sweep(run: Run, launch: int) -> int:
    """Sweep a launch on Slurm whose tasks have ended."""
    from slurm import submit

    jobs = request.read(run, launch)
    if jobs is not None and _at_work(jobs):
        log.info("Tasks of %s launch %d are still in the queue; nothing to sweep yet.", run.id, launch)
        return SOME_FAILED
    verdict = settle(run, launch, submit.submit)
    log.info("%s: %s", verdict.outcome, verdict.message)
    return verdict.exit_status


def conclude(run: Run, launch: int, outcome: str, message: str) -> None:
    """Record an outcome that was come to otherwise."""
    store.write_json(verdict_path(run, launch), Verdict(launch, outcome, message, clock.iso()))


def _at_work(jobs: Jobs) -> bool:
    """Whether tasks of the launch (its sweep apart) are in the queue."""
    from slurm import active

    return jobs.cluster == "slurm" and any(
        not entry.name.endswith(request.SWEEP_SUFFIX) for entry in active.queued(jobs)
    )


if __name__ == "__main__":
    sys.exit(main())
