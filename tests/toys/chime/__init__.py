"""A pipeline for the tests of the engine that starts from a directory: every `*.wav` file's size is its result."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence, Union

from pipelines.core.manifest import Item
from pipelines.core.pipeline import Pipeline, Resources


class Processor:
    batch_items, batch_seconds = 8, 1e9

    def __init__(self, _: Mapping[str, Any], resources: Resources) -> None:
        self.concurrency = resources.cpus

    def process(self, items: Sequence[Item]) -> Sequence[Union[dict[str, Any], Exception]]:
        return [self._one(item) for item in items]

    def _one(self, item: Item) -> Union[dict[str, Any], Exception]:
        try:
            return {"bytes": Path(item.audio_filepath).stat().st_size}
        except OSError as error:
            return error

    def close(self) -> None:
        pass


def list_items(source: Path, parameters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for folder, _, names in os.walk(source):
        for name in names:
            if name.endswith(".wav"):
                yield {"audio_filepath": str(Path(folder, name))}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pitch", type=int, default=440)


PIPELINE = Pipeline(
    name="chime",
    environment="vad",
    summary="A pipeline for the tests of the engine, over a directory.",
    load=Processor,
    source="directory",
    requires=("audio_filepath",),
    add_arguments=add_arguments,
    parameters=lambda options: {"pitch": options.pitch},
    list_items=list_items,
)
