"""A pipeline for the tests of the engine: it needs no audio, and can be told to be slow, to fail and to die.

What an item does is written in its row: `nap` (seconds of sleep), `raise` (message of an exception), `kill` (a
signal that the process sends itself), `once` (a path: the fault happens only until that file exists).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import time
from pathlib import Path
from typing import Any, Mapping, Sequence, Union

from pipelines.core.errors import ItemError
from pipelines.core.manifest import Item
from pipelines.core.pipeline import Pipeline, Resources


class Processor:
    batch_seconds = 1e9

    def __init__(self, parameters: Mapping[str, Any], resources: Resources) -> None:
        self.concurrency = resources.cpus
        self.batch_items = int(os.environ.get("TOY_BATCH", "4"))
        self._factor = parameters["factor"]
        if os.environ.get("TOY_DIE_LOADING"):
            os.kill(os.getpid(), signal.SIGKILL)

    def process(self, items: Sequence[Item]) -> Sequence[Union[dict[str, Any], Exception]]:
        return [self._one(item) for item in items]

    def _one(self, item: Item) -> Union[dict[str, Any], Exception]:
        fields = item.fields()
        time.sleep(fields.get("nap", 0) or float(os.environ.get("TOY_NAP", "0")))
        once = fields.get("once")
        if once is None or not Path(once).exists():
            if once is not None:
                Path(once).touch()
            if "kill" in fields:
                os.kill(os.getpid(), fields["kill"])
                time.sleep(10)
            if "raise" in fields:
                raise ItemError(fields["raise"])
        digest = hashlib.sha256(item.audio_filepath.encode()).hexdigest()[:12]
        return {"tone": digest, "loud": round(self._factor * len(item.audio_filepath), 3)}

    def close(self) -> None:
        pass


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--factor", type=float, default=1.0)


PIPELINE = Pipeline(
    name="tone",
    summary="A pipeline for the tests of the engine.",
    load=Processor,
    add_arguments=add_arguments,
    parameters=lambda options: {"factor": options.factor},
    adds=("tone", "loud"),
)
