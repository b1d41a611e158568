"""Following a run from a terminal until it is merged, or until its sweep gives up. Leaving does not end the run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Optional

from pipelines.core import merge, progress
from pipelines.core.errors import DONE, SOME_FAILED, ClusterNotFit, IncompleteRunError
from pipelines.core.run import Run
from slurm import active, cluster, merging, request, states, sweep

_POLL_S = 1.0
_QUIET_EVERY_S = 60.0
_QUEUE_EVERY_S = 10.0
_LOST_AFTER = 3
"""How many times in a row the queue must know none of a launch's jobs before they count as lost."""


def finish(run: Run) -> int:
    """Nothing is missing: make sure that it is merged, and say so."""
    receipt = merging.merge(run, if_due=True)
    print(f"Every item of {run.id} is accounted for.\n{merge.summary(receipt)}")
    return SOME_FAILED if receipt.quarantined or receipt.missing else DONE


class Display:
    """One line rewritten on a terminal, a line a minute elsewhere; notes stand on lines of their own, once each."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown = time.monotonic()
        self._noted: set[str] = set()

    def show(self, run: Run, launch: int) -> None:
        """Show a launch's progress, if it is time."""
        if not self._terminal and time.monotonic() - self._shown < _QUIET_EVERY_S:
            return
        self._shown = time.monotonic()
        text = progress.line(progress.snapshot(run, launch))
        width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be rewritten
        sys.stderr.write(f"\r\x1b[K{text[:width]}" if self._terminal else f"{text}\n")
        sys.stderr.flush()

    def note(self, text: str) -> None:
        """Say something once."""
        if text not in self._noted:
            self._noted.add(text)
            sys.stderr.write(f"\r\x1b[K{text}\n" if self._terminal else f"{text}\n")
            sys.stderr.flush()


def conclude(run: Run, verdict: sweep.Verdict, display: Display) -> int:
    """Tell the verdict that ended the wait."""
    if verdict.outcome == sweep.MERGED:
        display.note(f"{run.id} is done.")
        print(verdict.message, flush=True)
    else:
        display.note(verdict.message)
    return verdict.exit_status


def wait(run: Run, launch: int, process: Optional[subprocess.Popen[bytes]] = None) -> int:
    """Follow a run to its end, wherever it is at work. `process`: the pump, if this process started it."""
    jobs = request.read(run, launch)
    if process is not None or (jobs is not None and jobs.cluster == "local"):
        return wait_here(run, launch, process)
    return wait_there(run, launch)


def wait_there(run: Run, launch: int) -> int:
    """Follow a run on Slurm until its sweep has merged or given up. Ctrl-C leaves it running."""
    display, asked, lost = Display(), 0.0, 0
    try:
        while True:
            verdict = sweep.read(run, launch)
            if verdict is not None and verdict.next is not None and verdict.outcome in (sweep.RESUBMITTED, sweep.LEFT):
                display.note(verdict.message)
                launch, asked, lost = verdict.next, 0.0, 0
                continue
            if verdict is not None:
                return conclude(run, verdict, display)
            display.show(run, launch)
            if time.monotonic() - asked > _QUEUE_EVERY_S:
                lost = 0 if _look_at_queue(run, launch, display) else lost + 1
                asked = time.monotonic()
                if lost >= _LOST_AFTER and sweep.read(run, launch) is None:
                    return _without_sweep(run, display)
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        display.note(f"\nThe run goes on; `./voxarray status {run.id}` shows how far it is.")
        return DONE


def _look_at_queue(run: Run, launch: int, display: Display) -> bool:
    """Say what keeps jobs waiting, in plain words. False where the queue knows none of the launch's jobs."""
    jobs = request.read(run, launch)
    try:
        queued = active.queued(jobs) if jobs is not None else cluster.queue([str(run.record(launch).job)])
    except ClusterNotFit as error:
        display.note(f"{error} The run does not depend on this terminal; waiting on.")
        return True
    # That the sweep waits for the tasks goes without saying.
    for text in states.explain(entry for entry in queued if entry.reason != "Dependency"):
        display.note(text)
    return bool(queued)


def _without_sweep(run: Run, display: Display) -> int:
    """No job is left, and no sweep has spoken: lost, or never there (plain sbatch). Merges if all is done."""
    try:
        return finish(run)
    except IncompleteRunError:
        display.note(_lost(run))
        return SOME_FAILED


def _lost(run: Run) -> str:
    return (
        f"Slurm no longer knows the jobs of {run.id}, and its sweep left no word: it was cancelled or died. What was "
        f"done is kept; `./voxarray retry {run.id}` launches what is missing."
    )


def wait_here(run: Run, launch: int, process: Optional[subprocess.Popen[bytes]]) -> int:
    """Follow a run on this machine. Ctrl-C stops it, cleanly; where another terminal started it, it goes on."""
    display = Display()
    pid = process.pid if process is not None else _pump_of(run, launch)
    asked = 0
    while True:
        try:
            verdict = sweep.read(run, launch)
            alive = _is_alive(process, pid)
            if verdict is not None and verdict.outcome == sweep.RESUBMITTED and verdict.next is not None:
                display.note(verdict.message)
                launch = verdict.next
            elif verdict is not None and not alive:
                return conclude(run, verdict, display)
            elif not alive:
                display.note(_pump_died(run, launch))
                return SOME_FAILED
            else:
                display.show(run, launch)
                time.sleep(_POLL_S / 4)
        except KeyboardInterrupt:
            if process is None:
                display.note(f"\nThe run goes on; `./voxarray cancel {run.id}` ends it.")
                return DONE
            asked += 1
            _stop(pid, asked, display)


def _stop(pid: Optional[int], asked: int, display: Display) -> None:
    if asked == 1:
        display.note(
            "\nStopping: tasks publish what they have (again Ctrl-C ends them at once; nothing published is lost)."
        )
        with suppress(OSError, TypeError):
            os.kill(pid, signal.SIGTERM)  # type: ignore[arg-type]
    else:
        with suppress(OSError, TypeError):
            os.killpg(pid, signal.SIGKILL)  # type: ignore[arg-type]


def _pump_of(run: Run, launch: int) -> Optional[int]:
    jobs = request.read(run, launch)
    return next((int(job.job_id) for job in jobs.jobs if job.kind == request.PUMP), None) if jobs else None


def _is_alive(process: Optional[subprocess.Popen[bytes]], pid: Optional[int]) -> bool:
    if process is not None:
        return process.poll() is None
    return pid is not None and active.is_pump(str(pid))


def _pump_died(run: Run, launch: int) -> str:
    from pipelines.core import paths

    try:
        last = (paths.logs(run.id, launch) / "pump.log").read_text(encoding="utf-8").strip().splitlines()[-1:]
    except OSError:
        last = []
    return (
        f"The process that ran {run.id} on this machine ended before its work did{': ' + last[0] if last else ''}. "
        f"What was published is kept. The same command, or `./voxarray retry {run.id}`, does the rest."
    )
