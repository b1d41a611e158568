"""The conductor: takes a chain on by whatever can be done now. Idempotent; it trusts receipts and nothing else.

On Slurm it is a job of seconds that depends (`afterany`) on the sweep of the step at work: it needs no live launcher.
A sweep that launches what is missing once more is not the end of its step: the conductor then waits for the next one.
On this machine the command itself conducts, step by step.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import socket
import sys
import time
from contextlib import suppress
from typing import Any, Optional, Sequence

from pipelines.core import lock, logs, provenance, requeue
from pipelines.core.errors import DONE as ALL_DONE
from pipelines.core.errors import SOME_FAILED, ClusterNotFit, StorageError, VoxarrayError
from pipelines.core.run import Run
from slurm import cluster, control, environments, job, request, submit
from slurm.chain import doing, following, state
from slurm.chain.plan import Link
from slurm.chain.state import DONE, RUNNING, WAITING, Order, Standing, State
from slurm.request import Request

log = logging.getLogger(__name__)

_PAUSES_S = (10.0, 60.0, 300.0)
_WAIT_S = 6 * 3600.0


def advance(chain: str, conducting: bool, again: bool = False, patient: bool = False) -> State:
    """Do whatever of a chain can be done now. `again`: look at all of it anew, as a user's command does.

    `conducting`, `patient`: see `slurm.chain.doing.do`.
    """
    folder = state.folder(chain)
    with lock.held(folder / "chain.lock", _WAIT_S, f"The chain {chain}"):
        order = state.read_order(chain)
        whole = taken_up(order, again)
        if order.where != "slurm":
            whole.pid, whole.host, whole.began = os.getpid(), socket.gethostname(), following.began(os.getpid())
        whole.job = provenance.scheduler_job() if conducting else None
        state.write(whole)
        try:
            _advance(order, whole, conducting, patient)
            if whole.job is not None:
                whole.job = None
                state.write(whole)
        finally:
            if whole.pid is not None:
                whole.pid = None
                with suppress(StorageError):
                    state.write(whole)
        return whole


def _advance(order: Order, whole: State, conducting: bool, patient: bool) -> None:
    for link in order.links:
        standing = whole.links[link.name]
        if state.cancelled_path(order.id).exists():
            break
        if standing.state in (RUNNING, WAITING) and _is_free(whole, link):
            _say(order, link)
            doing.do(order, whole, link, conducting, patient)
            if standing.state == RUNNING and not state.cancelled_path(order.id).exists():
                _conducted(order, whole, standing)
            state.write(whole)
            log.info("%s: %s%s", link.name, standing.state, f" ({standing.message})" if standing.message else "")
    if state.cancelled_path(order.id).exists():
        log.info("%s was cancelled.", order.id)
        for standing in whole.links.values():
            if standing.state == RUNNING and standing.run:  # `cancel` may have come too early to know of it
                control.cancelled(Run.open(standing.run))


def taken_up(order: Order, again: bool) -> State:
    """The state to go on from. `again`: as a user's command does, which looks at all anew."""
    before: Optional[State] = None
    try:
        before = state.read(order.id)
    except VoxarrayError:
        again = True
    return state.fresh(order, before) if again or before is None else before


def _is_free(whole: State, link: Link) -> bool:
    return all(whole.links[name].state == DONE for name in link.after)


def _say(order: Order, link: Link) -> None:
    number = [other.name for other in order.links].index(link.name) + 1
    log.info("Step %d of %d, %s: %s", number, len(order.links), link.name, shlex.join(link.words))


def _conducted(order: Order, whole: State, standing: Standing) -> None:
    """See to it that a job waits for the link at work."""
    if standing.conductor is not None and cluster.queue([standing.conductor]):
        return
    run, number = Run.open(standing.run or ""), standing.launch or 0
    jobs = request.read(run, number)
    wanted = jobs.request if jobs is not None else Request()
    try:
        with requeue.deferred():  # what is submitted is on record
            standing.conductor = _submit(order.id, run, number, wanted, str(standing.sweep))
            state.write(whole)
    except ClusterNotFit as error:
        standing.state, standing.message = state.STOPPED, str(error)


def _submit(chain: str, run: Run, number: int, wanted: Request, after: str) -> str:
    """Submit the job that goes on once `after` has ended, whatever becomes of it."""
    from submitit import SlurmExecutor

    values = submit.sweep_parameters(run, number, wanted, [after])
    values["job_name"] = f"chain.{chain}"
    folder = state.folder(chain) / "conductors"
    where = folder / f"{len(list(folder.glob('*'))):04d}-{os.getpid()}"
    executor: Any = SlurmExecutor(where, python=shlex.quote(str(environments.python("launcher"))))
    executor.update_parameters(**values)
    try:
        with cluster.outside_of_jobs():
            return str(executor.submit(job.run_chain, json.dumps({"chain": chain})).job_id)
    except Exception as error:
        said = submit.reason(error)
        raise ClusterNotFit(
            f"Slurm refused the job that takes the chain on once {run.id} is merged: {said}. {submit.advice(said)} "
            "The step itself goes on; give the same `voxarray run …` again, which waits for it."
        ) from error


def _advance_patiently(chain: str) -> State:
    """Nobody looks on: what may pass is waited for."""
    for pause in _PAUSES_S:
        try:
            return advance(chain, conducting=True, patient=True)
        except (*doing.PASSING, OSError) as error:
            log.warning("%s Trying again in %.0f s.", error, pause)
            time.sleep(pause)
    return advance(chain, conducting=True)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """`python -m slurm.chain.conductor CHAIN`: as a job, or as a process of its own on this machine."""
    parser = argparse.ArgumentParser(prog="python -m slurm.chain.conductor", description=__doc__, allow_abbrev=False)
    parser.add_argument("chain", metavar="CHAIN", help="the chain's id")
    chain = parser.parse_args(arguments).chain
    logs.to_stream(sys.stderr)
    logs.to_file(state.folder(chain) / "chain.log")
    try:
        whole = _advance_patiently(chain)
    except VoxarrayError as error:
        log.error("%s", error)  # noqa: TRY400 - the paragraph says it all
        return error.exit_status
    return SOME_FAILED if whole.state == state.STOPPED else ALL_DONE


if __name__ == "__main__":
    sys.exit(main())
