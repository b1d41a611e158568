"""A toy that writes a file for each item below `$TOY_PAGES/NAME`, so that the engine has files to look after."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

from pipelines.core import store
from pipelines.core.errors import ItemError
from pipelines.core.manifest import Item
from pipelines.core.pipeline import Pipeline, Resources


class Processor:
    concurrency = 1
    batch_items = 2
    batch_seconds = 1e9

    def __init__(self, parameters: Mapping[str, Any], _: Resources) -> None:
        self._parameters = parameters

    def process(self, items: Sequence[Item]) -> Sequence[dict[str, Any]]:
        seen = os.environ.get("TOY_SEEN")
        if seen:
            with Path(seen).open("a", encoding="utf-8") as file:
                file.writelines(f"{Path(item.audio_filepath).name}\n" for item in items)
        return [self._written(item) for item in items]

    def _written(self, item: Item) -> dict[str, Any]:
        path = Path(os.environ["TOY_PAGES"], str(output_name(item, self._parameters)))
        text = item.key.encode()
        store.replace(path, text)
        return {"path": str(path), "bytes": len(text)}

    def close(self) -> None:
        pass


def output_name(item: Item, parameters: Mapping[str, Any]) -> Optional[str]:
    path = Path(item.audio_filepath)
    if path.stem == "nameless":
        raise ItemError(f"{path} has no name")
    return None if path.stem == "silent" else f"{parameters['name']}/{path.stem}.txt"


def is_whole(result: bytes) -> bool:
    found = json.loads(result)
    path = Path(found["path"])
    return path.exists() and path.stat().st_size == found["bytes"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--pen", default="quill")


PIPELINE = Pipeline(
    name="scribe",
    environment="vad",
    environments={"pen brush": "test"},
    summary="A pipeline for the tests of the engine that writes files.",
    load=Processor,
    add_arguments=add_arguments,
    parameters=lambda options: {"name": options.name, "pen": options.pen},
    output_name=output_name,
    is_whole=is_whole,
)
