"""A pipeline for the tests of the engine: it needs no audio, and can be told to be slow, to fail and to die.

What an item does is written in its row: `nap` (seconds of sleep), `spin` (seconds of processor time), `raise` (message
of an exception), `batch` (the whole call raises while the item shares its batch), `short` (the call returns one result
too few), `kill` (a signal that the process sends itself), `exit` (a status that the process ends with, as C libraries
do), `sys_exit` (the same as Python does), `odd` (what is returned: "object", "none", "surrogate" or "nan"), `machine`
(a fault that is not the item's: "full", "returned" or "unfit"), `once` (a path: the fault happens only until that file
exists).

Variables: `TOY_NAP` (sleep of every item), `TOY_BATCH` (items a batch), `TOY_SEEN` (a file that gets the name of every
item processed), `TOY_LOAD_S` (sleep while loading), `TOY_DIE_LOADING` (the process kills itself while loading),
`TOY_NOT_FIT` (what the environment lacks).
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Mapping, Sequence, Union

from pipelines.core.errors import EnvironmentNotFit, ItemError
from pipelines.core.manifest import Item
from pipelines.core.pipeline import Pipeline, Resources

ODD: dict[str, Any] = {
    "object": {"tone": object()},
    "none": None,
    "surrogate": {"tone": "\udcff"},
    "nan": {"tone": float("nan")},
}


class Processor:
    batch_seconds = 1e9

    def __init__(self, parameters: Mapping[str, Any], resources: Resources) -> None:
        self.concurrency = resources.cpus
        self.batch_items = int(os.environ.get("TOY_BATCH", "4"))
        self._factor = parameters["factor"]
        time.sleep(float(os.environ.get("TOY_LOAD_S", "0")))
        if os.environ.get("TOY_NOT_FIT"):
            raise EnvironmentNotFit(os.environ["TOY_NOT_FIT"])
        if os.environ.get("TOY_DIE_LOADING"):
            os.kill(os.getpid(), signal.SIGKILL)

    def process(self, items: Sequence[Item]) -> Sequence[Union[dict[str, Any], Exception]]:
        fields = [item.fields() for item in items]
        if len(items) > 1:
            for row in fields:
                if "batch" in row:
                    raise RuntimeError(row["batch"])
        results = [self._one(item, row) for item, row in zip(items, fields)]
        return results[:-1] if any("short" in row for row in fields) else results

    def _one(self, item: Item, fields: Mapping[str, Any]) -> Union[dict[str, Any], Exception]:
        _note(item)
        time.sleep(fields.get("nap", 0) or float(os.environ.get("TOY_NAP", "0")))
        until = time.process_time() + fields.get("spin", 0)
        while time.process_time() < until:
            pass
        once = fields.get("once")
        if once is None or not Path(once).exists():
            if once is not None:
                Path(once).touch()
            if "kill" in fields:
                os.kill(os.getpid(), fields["kill"])
                time.sleep(10)
            if "exit" in fields:
                os._exit(fields["exit"])
            if "sys_exit" in fields:
                sys.exit(fields["sys_exit"])
            if "raise" in fields:
                return ItemError(fields["raise"])
            if "machine" in fields:
                full = OSError(errno.ENOSPC, "No space left on device", "/output/tone.wav")
                if fields["machine"] == "returned":
                    return full
                raise full if fields["machine"] == "full" else EnvironmentNotFit("the GPU is gone")
            if "odd" in fields:
                return ODD[fields["odd"]]
        digest = hashlib.sha256(item.audio_filepath.encode()).hexdigest()[:12]
        return {"tone": digest, "loud": round(self._factor * len(item.audio_filepath), 3)}

    def close(self) -> None:
        pass


def _note(item: Item) -> None:
    """Append the item's name to the file of those seen, in one system call."""
    path = os.environ.get("TOY_SEEN")
    if path:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.write(file, f"{Path(item.audio_filepath).name}\n".encode())
        os.close(file)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--factor", type=float, default=1.0)


PIPELINE = Pipeline(
    name="tone",
    environment="vad",
    summary="A pipeline for the tests of the engine.",
    load=Processor,
    add_arguments=add_arguments,
    parameters=lambda options: {"factor": options.factor},
    adds=("tone", "loud"),
)
