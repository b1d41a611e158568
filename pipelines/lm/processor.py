"""Trains the combinations that the engine hands out, one after the other, from wherever each stands."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Optional, Sequence

from pipelines.core import store
from pipelines.core.errors import STOPPED_BY_WARNING, ItemError, Unfinished
from pipelines.core.manifest import Item
from pipelines.core.pipeline import Parameters, Resources

log = logging.getLogger(__name__)

PROCESSES = "VOXARRAY_LM_PROCESSES"
"""How many processes train one model; without it, one a GPU."""
_POLL_S = 0.2


class LmProcessor:
    """One training at a time. `stop` (called in a signal handler) ends it at its next step, with its state saved."""

    concurrency = 1
    batch_items = 1
    batch_seconds = float("inf")

    def __init__(self, parameters: Parameters, resources: Resources) -> None:
        self._parameters = parameters
        self._processes = int(os.environ.get(PROCESSES) or max(1, resources.gpus))
        self._cpus = resources.cpus
        self._stopped = False

    def stop(self) -> None:
        """End the training that is under way."""
        self._stopped = True

    def process(self, items: Sequence[Item]) -> Sequence[dict[str, Any]]:
        """Each combination's best figures, and where its checkpoint lies."""
        return [self._trained(item) for item in items]

    def _trained(self, item: Item) -> dict[str, Any]:
        fields = item.fields()
        folder = Path(item.audio_filepath)
        order = {
            "manifest": fields["manifest"],
            "units": self._parameters["units"],
            "split_by": self._parameters["split_by"],
            "raw": self._parameters["raw"],
            "folder": str(folder),
            "settings": fields["settings"],
            "threads": max(1, self._cpus // self._processes),
        }
        store.replace(folder / "settings.json", store.pretty(order))
        if self._processes > 1:
            self._in_processes(folder)
        else:
            from pipelines.lm import one

            one.train(order, lambda: self._stopped)
        best = folder / "best.pt"
        metrics = json.loads((folder / "metrics.json").read_bytes())
        return {"path": str(best), "bytes": best.stat().st_size, "settings": fields["settings"], **metrics}

    def _in_processes(self, folder: Path) -> None:
        """Torchrun over this node's GPUs. Told to stop by a file: torchrun passes no signal on without killing."""
        sign = folder / "stop"
        sign.unlink(missing_ok=True)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc-per-node={self._processes}", "-m", "pipelines.lm.one", str(folder / "settings.json")]
        process = subprocess.Popen(command)
        try:
            status = self._followed(process, sign)
        finally:
            process.kill()
        if self._stopped and not (folder / "metrics.json").exists():
            raise Unfinished("stopped; goes on from its last state")
        if status:
            raise ItemError(f"torchrun ended with status {status}; the task's log has the processes' messages.")

    def _followed(self, process: subprocess.Popen[bytes], sign: Path) -> int:
        status: Optional[int] = None
        while status is None:
            if self._stopped and not sign.exists():
                sign.touch()
            time.sleep(_POLL_S)
            status = process.poll()
        return 0 if status == STOPPED_BY_WARNING else status

    def close(self) -> None:
        """Nothing is left open."""
