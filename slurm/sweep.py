"""The sweep: what happens once every task of a launch has ended, however it ended.

It trusts what is on disk and nothing else. Where every item is accounted for it merges; else it launches what is
missing once more, with a sweep of its own, a few rounds at most; else it says what is missing and how to go on. It needs
no live launcher: on Slurm it is a job that depends (`afterany`) on the arrays; on this machine the launch's pump does it.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Optional, Sequence

import msgspec

from pipelines.core import clock, heartbeat, lock, logs, merge, paths, store
from pipelines.core.errors import (
    DONE,
    NOT_FIT,
    SOME_FAILED,
    USAGE,
    ClusterNotFit,
    IncompleteRunError,
    VoxarrayError,
)
from pipelines.core.launches import LaunchRecord
from pipelines.core.run import Run, Wish
from slurm import request
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


class Verdict(msgspec.Struct, frozen=True):
    """`state/launch-NNN/sweep.json`: what the sweep of a launch did. `next`: the launch it made, if it made one.

    outcome: merged; resubmitted; gave up (the message says what is missing and how to go on); cancelled; limited (what
    --limit asked for is done, the rest was not asked for); left (a later launch has taken over, or tasks are still at work).
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


def settle(run: Run, launch: int) -> Verdict:
    """Merge, or make (not submit) the next launch, or give up. Two sweeps at once wait for each other. Idempotent."""
    with lock.held(run.folder / "sweep.lock", _WAIT_S, f"The sweep of {run.id}"):
        last = run.launch_numbers()[-1]
        if last > launch:
            return _adopt(run, launch, last)
        verdict = _decide(run, launch)
        store.write_json(verdict_path(run, launch), verdict)
    return verdict


def _adopt(run: Run, launch: int, last: int) -> Verdict:
    """A later launch exists. If a sweep of this launch made it and died before submitting it, it is to be submitted."""
    jobs, record = request.read(run, last), run.record(last)
    mine = request.read(run, launch)
    if record.sweep_round and jobs is None and mine is not None and not request.is_cancelled(run, launch):
        return Verdict(launch, RESUBMITTED, "an earlier sweep made the next launch", clock.iso(), next=last)
    return Verdict(launch, LEFT, f"launch {last} has taken over", clock.iso(), next=last)


def _decide(run: Run, launch: int) -> Verdict:
    jobs = request.read(run, launch)
    wanted = jobs.request if jobs else Request()
    try:
        receipt = merge.merge(run, if_due=True)
    except IncompleteRunError as error:
        return _incomplete(run, run.record(launch), wanted, str(error))
    summary = merge.summary(receipt)
    return Verdict(launch, MERGED, summary, clock.iso(), quarantined=receipt.quarantined)


def _incomplete(run: Run, record: LaunchRecord, wanted: Request, why: str) -> Verdict:
    if request.is_cancelled(run, record.number):
        message = f"{run.id} was cancelled. {why}"
        return Verdict(record.number, CANCELLED, message, clock.iso())
    limit = None
    if wanted.limit is not None:
        limit = left_of(run, record)
        if not limit:
            message = f"The {record.items:,} items that --limit asked for are done. {why}"
            return Verdict(record.number, LIMITED, message, clock.iso())
    if record.sweep_round >= wanted.rounds:
        message = f"After {record.sweep_round} more rounds items are still missing; it needs a look at why: `./voxarray logs {run.id} --errors`. {why}"
        return Verdict(record.number, GAVE_UP, message, clock.iso())
    if _is_barren(run, record):
        message = (
            f"Two launches in a row did not do a single item, so that a third would not either: `./voxarray logs {run.id} "
            f"--errors` tells why. {why}"
        )
        return Verdict(record.number, GAVE_UP, message, clock.iso())
    return _again(run, record, limit, why)


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
    message = f"{made.items:,} items are missing; launch {made.number} does them (round {made.sweep_round})."
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
    """Settle a Slurm launch whose tasks have ended, and submit the next one if there is one."""
    from slurm import submit

    jobs = request.read(run, launch)
    if jobs is not None and _at_work(jobs):
        log.info("Tasks of %s launch %d are still in the queue; nothing to sweep yet.", run.id, launch)
        return SOME_FAILED
    verdict = settle(run, launch)
    log.info("%s: %s", verdict.outcome, verdict.message)
    if verdict.outcome == RESUBMITTED and verdict.next is not None and jobs is not None:
        try:
            submit.submit(run, run.record(verdict.next), jobs.request)
        except ClusterNotFit as error:
            message = f"{verdict.message} They could not be submitted from {os.uname().nodename}: {error}"
            give_up(run, launch, message)
            log.error("%s", message)  # noqa: TRY400 - the paragraph says it all
            return NOT_FIT
    return verdict.exit_status


def give_up(run: Run, launch: int, message: str) -> None:
    """Record that the sweep could not go on."""
    store.write_json(verdict_path(run, launch), Verdict(launch, GAVE_UP, message, clock.iso()))


def _at_work(jobs: Jobs) -> bool:
    """Whether tasks of the launch (its sweep apart) are in the queue."""
    from slurm import active

    return jobs.cluster == "slurm" and any(
        not entry.name.endswith(request.SWEEP_SUFFIX) for entry in active.queued(jobs)
    )


if __name__ == "__main__":
    sys.exit(main())
