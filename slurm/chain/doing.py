"""One link of a chain, done as far as it goes: launched, found at work, or proven done by its receipt."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Mapping, NamedTuple, Optional, Sequence

import msgspec

from pipelines.core import clock, merge, paths, registry, store
from pipelines.core import errors as core
from pipelines.core.errors import ClusterNotFit, IncompleteRunError, StorageError, VoxarrayError, listed
from pipelines.core.merge import Receipt
from pipelines.core.run import Run
from slurm import flags, launch, merging, prerequisite, request, resources, sweep, vouching
from slurm.chain import beforehand, plan, state
from slurm.chain.plan import Link
from slurm.chain.state import DONE, RUNNING, STOPPED, WAITING, Order, Standing, State
from slurm.launch import Decision

_REVIVALS = 3
"""How often a run whose sweep died without a word is launched again by a conductor."""
_DIGEST_AT_MOST = 1 << 30
"""Larger outputs are verified by their size alone."""
PASSING = (StorageError, ClusterNotFit)
"""Troubles that may pass."""
_FINAL = (sweep.GAVE_UP, sweep.CANCELLED, sweep.LIMITED)


class Given(NamedTuple):
    """What to launch for a link: its pipeline, or what that needs first, whose command is then `needed`."""

    decision: Decision
    needed: Optional[Sequence[str]]


def words(link: Link, results: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The link's command line, references filled in. Raises KeyError(link) where one is open, UsageError."""
    return [plan.referring(word, results) for word in link.words]


def given(order: Order, link: Link, command: Sequence[str]) -> Given:
    """What a link's command amounts to. Raises VoxarrayError."""
    description = resources.describe(registry.folders()[command[0]])
    pipeline = registry.find(command[0])
    how = [*link.launch, *order.flags, f"--cluster={order.where}", "--no-wait" if order.where == "slurm" else "--wait"]
    options = beforehand.parsed(link, [*command[1:], *how])
    needed = pipeline.needs(options) if pipeline.needs is not None else None
    if needed is None:
        return Given(launch.decide(pipeline, description, options), None)
    shared = [f"--{name}={value}" for name in prerequisite.SHARED if (value := getattr(options, name)) is not None]
    pipeline = registry.find(needed[0])
    description = resources.describe(registry.folders()[needed[0]])
    options = flags.pipeline_parser(pipeline, description).parse([*needed[1:], *shared, how[-1]])
    return Given(launch.decide(pipeline, description, options), needed)


def do(order: Order, whole: State, link: Link, conducting: bool, patient: bool = False) -> None:
    """Take a link as far as it goes now, and note in `whole` how it stands. Whatever goes wrong is noted, too.

    `conducting`: a launch that gave up, or was cancelled, ends the chain; a user's command would launch it again.
    `patient`: what may pass (a full disk, a silent controller) is raised, not noted: it will be tried again.
    """
    standing = whole.links[link.name]
    before = (standing.state, standing.run, standing.launch)
    try:
        with beforehand.at_home():
            command = words(link, {name: other.results for name, other in whole.links.items()})
            if link.is_tool:
                _tool(order, whole, link, command)
            else:
                _pipeline(order, whole, link, command, conducting)
    except VoxarrayError as error:
        if patient and isinstance(error, PASSING):
            raise
        standing.state, standing.message = STOPPED, str(error)
    if before != (standing.state, standing.run, standing.launch) or not standing.since:
        standing.since = clock.iso()


def _pipeline(order: Order, whole: State, link: Link, command: Sequence[str], conducting: bool) -> None:
    standing = whole.links[link.name]
    found = given(order, link, command)
    busy = _at_the_same_manifest(whole, link, found.decision)
    if busy:
        standing.state, standing.message = WAITING, f"for {busy}, which is at the same manifest"
        return
    if found.needed is not None:
        launch.say(f"First: voxarray {' '.join(found.needed)}")
        if not _take(order, whole, link, found, conducting):
            return
        found = given(order, link, command)
        if found.needed is not None:
            raise VoxarrayError(f"`voxarray {' '.join(found.needed)}` did not come to its end.")
    if not _take(order, whole, link, found, conducting):
        return
    run = Run.open(standing.run or "")
    standing.results = dict(run.pipeline.results_of(run.plan))
    standing.state, standing.sweep, standing.conductor = DONE, None, None


def _at_the_same_manifest(whole: State, link: Link, decision: Decision) -> str:
    """The link at work that reads or extends this one's manifest, where either extends it; empty where none does.

    Recipes may spell one manifest in several ways: here it is known which file is meant.
    """
    for name, other in whole.links.items():
        if name != link.name and other.state == RUNNING and other.run:
            run = Run.open(other.run)
            extends = decision.pipeline.extends or run.pipeline.extends
            if extends and decision.source.resolve() == run.manifest.resolve():
                return name
    return ""


def _take(order: Order, whole: State, link: Link, found: Given, conducting: bool) -> bool:
    """Launch what a decision lacks. Whether nothing is missing: its receipt was then verified."""
    decision, standing = found.decision, whole.links[link.name]
    run = launch.existing(decision)
    # Of a run that this chain waits for; what a sweep said before that was of another time.
    waited = conducting and standing.state == RUNNING and run is not None and standing.run == run.id
    verdict = _verdict(run) if run is not None and waited else None
    if verdict is not None and verdict.outcome in _FINAL:
        raise VoxarrayError(verdict.message)
    if run is None or verdict is None or verdict.outcome != sweep.MERGED:
        started = launch.start(decision)
        run = started.run
        if started.launch is not None and order.where == "slurm":
            _revived(standing, run.id, started.ours and conducting)
            _note(standing, run, started.launch.number)
            return False
        if started.launch is not None:
            standing.state, standing.run, standing.since = RUNNING, run.id, clock.iso()
            standing.message = f"launch {started.launch.number}"
            state.write(whole)
            launch.follow(decision, started)
    receipt = _receipt(run)
    failed = receipt.quarantined / max(1, receipt.items)
    standing.run, standing.launch = run.id, None
    if receipt.items and (failed > link.most_failed or receipt.merged == 0):
        raise VoxarrayError(
            f"{receipt.quarantined:,} of {receipt.items:,} items of {run.id} were given up, more than the share of "
            f"{link.most_failed:g} with which the recipe goes on (most_failed): "
            f"{listed([core.plain(cause.message.splitlines()[0][:160]) for cause in receipt.signatures[:3]], 3)}. "
            f"`./voxarray logs {run.id} --errors` tells why; `./voxarray retry {run.id} --quarantined` tries again."
        )
    standing.given_up = receipt.quarantined
    more = f", {receipt.quarantined:,} given up" if receipt.quarantined else ""
    standing.message = f"{receipt.merged:,} items{more}"
    return True


def _revived(standing: Standing, run: str, again: bool) -> None:
    """Count launches that a conductor had to make because a sweep died. Raises VoxarrayError after too many."""
    if not again or standing.run != run:
        return
    standing.revivals += 1
    if standing.revivals > _REVIVALS:
        raise VoxarrayError(
            f"The jobs of {run} ended {standing.revivals} times without their sweep saying anything: something ends "
            f"them. `./voxarray logs {run}` may tell what; the same `voxarray run …` goes on."
        )


def _note(standing: Standing, run: Run, number: int) -> None:
    """Note what the link waits for: the sweep, or the array where plain sbatch launched it."""
    jobs = request.read(run, number)
    sweeps = [job.job_id for job in jobs.jobs if job.kind == request.SWEEP] if jobs is not None else []
    waited = sweeps[-1] if sweeps else run.record(number).job
    if waited != standing.sweep:
        standing.sweep, standing.conductor = waited, None
    standing.state, standing.run, standing.launch = RUNNING, run.id, number
    standing.message = f"launch {number}"


def _verdict(run: Run) -> Optional[sweep.Verdict]:
    numbers = run.launch_numbers()
    return sweep.read(run, numbers[-1]) if numbers else None


def _receipt(run: Run) -> Receipt:
    """The receipt of a run that lacks nothing, verified. Raises VoxarrayError."""
    try:
        receipt = merging.merge(run, if_due=True)
    except IncompleteRunError as error:
        raise VoxarrayError(f"{error}") from None
    wrong = untrue(run, receipt)
    if wrong:
        raise VoxarrayError(
            f"What {run.id} left is not what its receipt says, so the chain stops here: {wrong}. `./voxarray merge "
            f"{run.id}` writes it anew from the parts; then give the same `voxarray run …` again."
        )
    return receipt


def untrue(run: Run, receipt: Receipt) -> str:
    """What of a receipt does not hold; empty where all does. Later runs may have extended its manifests."""
    if receipt.partial or receipt.missing:
        return f"the last merge was partial ({receipt.missing:,} items missing)"
    if receipt.items != receipt.merged + receipt.quarantined:
        return f"{receipt.items:,} items, but {receipt.merged:,} merged and {receipt.quarantined:,} given up"
    for file in receipt.outputs:
        path = Path(file.path)
        try:
            size = path.stat().st_size
        except OSError:
            return f"{path} is gone"
        same = size == file.bytes and (size > _DIGEST_AT_MOST or store.sha256_of(path) == file.sha256)
        if not same and not vouching.is_vouched_for(path, run):
            return f"{path} has changed since it was merged"
    return ""


def _tool(order: Order, whole: State, link: Link, command: Sequence[str]) -> None:
    """Run a command that is no pipeline, unless it has run on the same results already."""
    standing = whole.links[link.name]
    output = state.output_path(order.id, link.name)
    inputs = _inputs(whole, link, command)
    if standing.inputs != inputs or not output.exists():
        done = subprocess.run(
            [str(paths.repository() / "voxarray"), *command], capture_output=True, text=True, check=False
        )
        sys.stdout.write(done.stdout)
        sys.stdout.flush()
        sys.stderr.write(done.stderr)
        if done.returncode != core.DONE:
            said = done.stderr.strip().splitlines() or ["it said nothing"]
            raise VoxarrayError(f"`voxarray {' '.join(command)}` ended with status {done.returncode}: {said[-1]}")
        store.replace(output, done.stdout.encode())
    standing.inputs, standing.state, standing.message = inputs, DONE, str(output)
    standing.results = {"output": str(output)}


def _inputs(whole: State, link: Link, command: Sequence[str]) -> str:
    """What a tool's output depends on: its command, and the merges before it."""
    known = hashlib.sha256(msgspec.json.encode(list(command)))
    for name in link.after:
        run = whole.links[name].run
        receipt = merge.last_receipt(Run.open(run)) if run else None
        known.update(f"{name}{receipt.time if receipt else ''}".encode())
    return known.hexdigest()
