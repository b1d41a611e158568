"""Everything that a report shows, gathered once: how the run stands, its attempts, its results, its failures."""

from __future__ import annotations

from typing import Callable, NamedTuple, Optional

from pipelines.core import clock, progress
from pipelines.core.run import Run
from slurm import request
from slurm.view import attempts, failures, results
from slurm.view.attempts import Attempt
from slurm.view.failures import Cause
from slurm.view.headers import Headers, PartFile
from slurm.view.results import Results
from slurm.view.standing import Looker, Standing


class Resources(NamedTuple):
    """What the run cost, in hours; None where it is not on record."""

    task: float
    cpu: float
    core: Optional[float]
    gpu: Optional[float]


class Report(NamedTuple):
    """The material of a report. `speech_share`: of the audio, where the pipeline tells."""

    view: Standing
    files: list[PartFile]
    attempts: list[Attempt]
    results: Results
    causes: list[Cause]
    resources: Resources
    damaged: list[str]
    made: str

    @property
    def run(self) -> Run:
        """The run."""
        return self.view.run

    @property
    def wall_s(self) -> float:
        """Seconds in which any task was at work."""
        return attempts.busy_s(self.attempts)


def gather(run: Run, say: Callable[[int, int], None] = lambda *_: None) -> Report:
    """Read a run. `say` gets the rows read and their number, from time to time."""
    headers = Headers()
    files = headers.of(run)
    total = sum(file.header.rows for file in files)
    view = Looker().look(run)
    found = attempts.attempts(files, [progress.snapshot(run, number) for number in run.launch_numbers()])
    read = results.read(run, files, headers.damaged, lambda rows: say(rows, total))
    return Report(
        view=view,
        files=files,
        attempts=found,
        results=read,
        causes=failures.with_examples(run, read.blame.causes()),
        resources=_resources(run, found),
        damaged=list(headers.damaged.values()),
        made=clock.iso(),
    )


def _resources(run: Run, found: list[Attempt]) -> Resources:
    """Hours of tasks, of processor time that attempts told of, and of the cores and GPUs that launches asked for."""
    wall: dict[int, float] = {}
    for attempt in found:
        wall[attempt.launch] = wall.get(attempt.launch, 0.0) + attempt.wall_s / 3600
    asked = {launch: jobs.request for launch in wall if (jobs := request.read(run, launch)) is not None}
    known = len(asked) == len(wall) and bool(wall)
    return Resources(
        task=sum(wall.values()),
        cpu=sum(attempt.cpu_s for attempt in found) / 3600,
        core=sum(hours * asked[launch].cpus for launch, hours in wall.items()) if known else None,
        gpu=sum(hours * asked[launch].gpu_count for launch, hours in wall.items()) if known else None,
    )
