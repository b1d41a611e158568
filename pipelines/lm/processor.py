"""Trains the combinations that the engine hands out, one after the other, from wherever each stands."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Sequence, Union

import msgspec

from pipelines.core import lock, store
from pipelines.core.errors import ItemError, ManifestError, Unfinished, UsageError
from pipelines.core.manifest import Item
from pipelines.core.pipeline import Parameters, Resources
from pipelines.core.run import Run
from pipelines.language import files
from pipelines.lm import checkpoint, one, several

PROCESSES = "VOXARRAY_LM_PROCESSES"
"""How many processes train one model; without it, one a GPU."""
_WAIT_S = 120.0
_DATA = ("units", "split_by", "split_seed", "raw", "skip_missing", "vocabulary_size", "train_ratio", "test_ratio")
_TROUBLES = {kind.__name__: kind for kind in (ManifestError, UsageError, ItemError)}


class LmProcessor:
    """One training at a time. `stop` (called in a signal handler) ends it at its next step, with its state saved."""

    concurrency = 1
    batch_items = 1
    batch_seconds = float("inf")

    def __init__(self, parameters: Parameters, resources: Resources) -> None:
        self._data = {name: parameters[name] for name in _DATA}
        self._processes = int(os.environ.get(PROCESSES) or max(1, resources.gpus))
        self._threads = max(1, resources.cpus // self._processes)
        self._stopped = False

    def stop(self) -> None:
        """End the training that is under way."""
        self._stopped = True

    def process(self, items: Sequence[Item]) -> Sequence[Union[dict[str, Any], Exception]]:
        """Each combination's best figures, and where its model lies."""
        return [self._trained(item) for item in items]

    def _trained(self, item: Item) -> dict[str, Any]:
        fields, folder = item.fields(), Path(item.audio_filepath)
        run, settings = Run.open(fields["run"]), fields["settings"]
        order = one.Order(
            manifest=fields["manifest"],
            folder=str(folder),
            settings=settings,
            threads=self._threads,
            note=str(run.folder / "data.txt"),
            **self._data,
        )
        folder.mkdir(parents=True, exist_ok=True)
        with lock.held(folder.with_name(f".{folder.name}.lock"), _WAIT_S, f"The training in {folder}"):
            checkpoint.claim(folder, _stamp(run))
            store.replace(folder / one.ORDER, store.pretty(order))
            if self._processes > 1:
                self._in_processes(folder)
            else:
                one.train(order, lambda: self._stopped)
            metrics = json.loads((folder / one.METRICS).read_bytes())
        best = folder / files.BEST
        return {"path": str(best), "bytes": best.stat().st_size, "settings": settings, **metrics}

    def _in_processes(self, folder: Path) -> None:
        """Train in several processes. Raises what one of them raised."""
        trouble, metrics = folder / one.TROUBLE, folder / one.METRICS
        for path in (trouble, metrics):
            path.unlink(missing_ok=True)
        status = several.run("pipelines.lm.one", folder / one.ORDER, self._processes, lambda: self._stopped)
        if trouble.exists():
            said = msgspec.json.decode(trouble.read_bytes(), type=one.Trouble)
            raise _TROUBLES.get(said.kind, ItemError)(said.message)
        if not metrics.exists():
            if status == 0 or self._stopped:  # told to stop, by us or by the scheduler itself
                raise Unfinished("stopped; goes on from its last state")
            raise ItemError(f"A process of the training died (status {status}); the task's log has what it said.")

    def close(self) -> None:
        """Nothing is left open."""


def _stamp(run: Run) -> str:
    """What tells a run from one of the same id that --fresh moved aside."""
    return f"{run.plan.created}-{store.sha256_of(run.folder / 'run.json')[:8]}"
