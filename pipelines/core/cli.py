"""`python -m pipelines.NAME SOURCE …`: a pipeline in one process, or one task of a plain sbatch array.

In an array, whichever task comes first makes the launch (and lists the directory, for a pipeline that starts from
one); all use the same; the last to finish merges.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import Optional, Sequence

from pipelines.core import heartbeat, launches, lock, logs, merge, paths, progress, provenance, requeue, shard
from pipelines.core.arrays import SETUP_WAIT_S, ArrayTask, started_anew
from pipelines.core.errors import DONE, SOME_FAILED, STOPPED_BY_WARNING, LockedError, UsageError, VoxarrayError
from pipelines.core.errors import IncompleteRunError as Incomplete
from pipelines.core.launches import LaunchRecord
from pipelines.core.pipeline import Pipeline, Resources
from pipelines.core.run import Run, Wish
from pipelines.core.supervise import run_task
from pipelines.core.task import TaskLoop

log = logging.getLogger(__name__)


def add_source(parser: argparse.ArgumentParser, pipeline: Pipeline) -> None:
    """The operands: what is worked on, and (for a directory) the stem of the outputs."""
    if pipeline.source == "directory":
        parser.add_argument("source", metavar="DIR", help="directory of recordings, searched recursively")
        parser.add_argument(
            "stem",
            metavar="STEM",
            nargs="?",
            help="outputs are STEM.csv, STEM.json, …  (default: metadata/<directory's name>_<date>)",
        )
    else:
        metavar, told = pipeline.operand
        parser.add_argument("source", metavar=metavar, help=told)
        parser.set_defaults(stem=None)


def build_parser(pipeline: Pipeline) -> argparse.ArgumentParser:
    """The command line of one pipeline run without the launcher."""
    parser = argparse.ArgumentParser(
        prog=f"python -m pipelines.{pipeline.name}",
        description=pipeline.summary,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="Exit status: 0 all done, 1 some items failed or are missing, 2 usage, 3 environment not fit.",
    )
    add_source(parser, pipeline)
    pipeline.add_arguments(parser)  # before NUM_TASKS: it may add operands
    parser.add_argument(
        "number",
        metavar="NUM_TASKS",
        nargs="?",
        type=int,
        default=None,
        help="tasks of the whole array; remembered from the first launch",
    )
    how = parser.add_argument_group("how it is run (results do not depend on these)")
    how.add_argument("--tasks", type=int, default=None, help="the same as NUM_TASKS")
    how.add_argument(
        "--cpus", type=int, default=None, help="processor cores a task may use (default: what Slurm gave, or 1)"
    )
    how.add_argument("--shard", choices=shard.METHODS, default=shard.ROUND_ROBIN, help="how items are dealt to tasks")
    how.add_argument("--limit", type=int, default=None, help="do at most so many of the missing items")
    how.add_argument("--fresh", action="store_true", help="start anew; the earlier run's folder is moved aside")
    how.add_argument("--partial", action="store_true", help="merge even if items are missing")
    how.add_argument("--no-merge", action="store_true", help="leave the merge to a later command")
    how.add_argument("--debug", action="store_true", help="no worker process: breakpoints and tracebacks reach you")
    return parser


def locate(pipeline: Pipeline, options: argparse.Namespace) -> Run:
    """The run that this command line names; made if it does not exist."""
    source = paths.absolute(options.source)
    stem = paths.absolute(options.stem) if options.stem else None
    if not source.exists():
        kind = "directory" if pipeline.source == "directory" else "manifest"
        raise UsageError(
            f"The {kind} {source} does not exist (on {provenance.host()}). Check the path, and that this node "
            "sees the same file system."
        )
    parameters = pipeline.parameters(options)
    if options.fresh:
        return started_anew(pipeline, source, stem, parameters)
    return Run.create(pipeline, source, stem, parameters)


def main(pipeline: Pipeline, arguments: Optional[Sequence[str]] = None) -> int:
    """Entry point of `python -m pipelines.NAME`."""
    options = build_parser(pipeline).parse_intermixed_args(arguments)
    logs.to_stream(sys.stderr, plain=sys.stderr.isatty())
    try:
        with requeue.heeded(f"The job of {pipeline.name}"):
            array = ArrayTask.from_environment()
            run = locate(pipeline, options)
            if array is not None:
                return _array_task(run, options, array)
            return _whole_run(run, options)
    except VoxarrayError as error:
        log.error("%s", error)  # noqa: TRY400 - the paragraph says it all
        return error.exit_status
    except KeyboardInterrupt:
        log.error("Stopped. What was published is kept; the same command resumes.")  # noqa: TRY400
        return SOME_FAILED


def resources(options: argparse.Namespace) -> Resources:
    """What this process may use: --cpus, else what Slurm gave the task, else one core."""
    get = os.environ.get
    cpus = options.cpus or int(get("SLURM_CPUS_PER_TASK") or get("SLURM_CPUS_ON_NODE") or 1)
    gpus = len([gpu for gpu in (get("CUDA_VISIBLE_DEVICES") or "").split(",") if gpu])
    memory = get("SLURM_MEM_PER_NODE")
    return Resources(cpus, gpus, int(memory) if memory and memory.isdigit() else None)


def _whole_run(run: Run, options: argparse.Namespace) -> int:
    tasks = _given_tasks(options) or 1
    with lock.held(run.folder / "setup.lock", SETUP_WAIT_S, f"The set-up of {run.id}"):
        busy = lock.at_work(map(run.state_folder, run.launch_numbers()))
        if busy:
            raise LockedError(
                f"{run.id} is at work already: {busy}. Nothing was begun, as it would do the same items twice. Once "
                "that has ended, the same command does what is left."
            )
        record = run.new_launch(Wish(tasks, options.shard, cluster="process", limit=options.limit))
    if record is None:
        log.info("Every item of %s is accounted for already.", run.id)
    else:
        log.info("Run %s, launch %d: %d items to do.", run.id, record.number, record.items)
        for task in range(tasks):
            status = _one_task(run, record, task, options)
            if status != DONE:
                return SOME_FAILED if status == STOPPED_BY_WARNING else status
    if options.no_merge:
        return DONE
    receipt = merge.merge(run, options.partial, if_due=record is None and not options.partial)
    log.info("%s", merge.summary(receipt))
    return SOME_FAILED if receipt.quarantined or receipt.missing else DONE


def _one_task(run: Run, record: LaunchRecord, task: int, options: argparse.Namespace) -> int:
    if options.debug:
        return TaskLoop(run, record.number, task, resources(options)).work()
    with progress.Live(run, record.number):
        return run_task(run.id, record.number, task, resources(options), is_last=False)


def _array_task(run: Run, options: argparse.Namespace, array: ArrayTask) -> int:
    record = _join(run, options, array)
    if array.task >= record.tasks:
        raise UsageError(
            f"Task {array.task} does not exist: {run.id} has {record.tasks} tasks, 0 to {record.tasks - 1}. To "
            f"deal over more, give their number as the last argument, or use --tasks."
        )
    status = run_task(run.id, record.number, array.task, resources(options), is_last=False)
    if status == DONE and not options.no_merge:
        _merge_if_last(run, record)
    return status


def _join(run: Run, options: argparse.Namespace, array: ArrayTask) -> LaunchRecord:
    """The launch of this array: made by whichever of its tasks comes first."""
    known = _launch_of(run, array.job)
    if known is not None:
        return known
    with lock.held(run.folder / "setup.lock", SETUP_WAIT_S, f"The set-up of {run.id}"):
        known = _launch_of(run, array.job)
        if known is None:
            busy = lock.at_work(map(run.state_folder, run.launch_numbers()))
            if busy:
                log.warning(
                    "%s is at work in another job, too: %s. What that has not published yet may be done twice, to no "
                    "harm but the time. `scancel` one of the two where they have the same tasks.",
                    run.id,
                    busy,
                )
            tasks = _number_of_tasks(run, options, array)
            run.new_launch(
                Wish(
                    tasks,
                    _sharding(run, options, array),
                    launches.POSITION,
                    "sbatch",
                    array.job,
                    min(array.submitted, tasks),  # tasks that the run does not have are refused, and never end
                    limit=options.limit,
                    relist=array.whole,
                )
            )
            # Where locks do not hold, two tasks may have made one each; both deal alike, and the first counts for all.
            known = _launch_of(run, array.job)
    if known is None:
        raise VoxarrayError(
            f"The launch of array {array.job} could not be found after it was made in {run.folder}. The file "
            "system shows files late; give the same command again."
        )
    return known


def _launch_of(run: Run, job: str) -> Optional[LaunchRecord]:
    return next((record for record in run.records() if record.job == job), None)


def _plain_launches(run: Run) -> list[LaunchRecord]:
    return [record for record in run.records() if record.cluster == "sbatch"]


def _sharding(run: Run, options: argparse.Namespace, array: ArrayTask) -> str:
    """A repair keeps the sharding of the launch that it repairs."""
    plain = _plain_launches(run)
    return plain[-1].sharding if plain and not array.whole else options.shard


def _given_tasks(options: argparse.Namespace) -> Optional[int]:
    given: Optional[int] = options.number if options.tasks is None else options.tasks
    if given is not None and given < 1:
        raise UsageError(f"The number of tasks must be 1 or more, and {given} was given.")
    return given


def _number_of_tasks(run: Run, options: argparse.Namespace, array: ArrayTask) -> int:
    """Given on the command line; else remembered from an earlier array; else the size of a gapless array from 0."""
    given = _given_tasks(options)
    if given is not None:
        return given
    plain = _plain_launches(run)
    if plain:
        if array.submitted != plain[-1].tasks and array.whole and array.submitted > 1:
            log.warning(
                "%s has %d tasks since its first array; this array of %d does its tasks %d to %d. To deal over %d "
                "tasks instead, give that number as the last argument.",
                run.id,
                plain[-1].tasks,
                array.submitted,
                array.lowest,
                array.highest,
                array.submitted,
            )
        return plain[-1].tasks
    if array.whole:
        return array.submitted
    raise UsageError(
        f"The first array of {run.id} has the tasks {array.lowest} to {array.highest} with gaps or not from 0, which "
        "does not say how many there are in all. Give their number as the last argument (as in `… DIR STEM 16`), or "
        "start with a whole array (`--array=0-15`)."
    )


def _merge_if_last(run: Run, record: LaunchRecord) -> None:
    """The last task of the array to finish merges, unless the array left items missing."""
    state = run.state_folder(record.number)
    ended = sum(heartbeat.end_path(state, task).exists() for task in range(record.tasks))
    if ended < (record.submitted_tasks or record.tasks):
        return
    try:
        receipt = merge.merge(run, if_due=True)
    except Incomplete as error:
        log.warning("%s", error)
    else:
        log.info("%s", merge.summary(receipt))
