"""A toy that takes its time over an item and keeps where it is in a file below `$TOY_DESK`, as a training does."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Sequence

from pipelines.core import store
from pipelines.core.errors import Unfinished
from pipelines.core.manifest import Item
from pipelines.core.pipeline import Pipeline

PAGES = 20


class Processor:
    concurrency = 1
    batch_items = 1
    batch_seconds = 1e9

    def __init__(self, *_: object) -> None:
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    def process(self, items: Sequence[Item]) -> Sequence[dict[str, Any]]:
        return [self._read(item) for item in items]

    def _read(self, item: Item) -> dict[str, Any]:
        mark = Path(os.environ["TOY_DESK"], item.key)
        page = int(mark.read_text()) if mark.exists() else 0
        read = 0
        while page < PAGES:
            if self._stopped:
                raise Unfinished(f"stopped at page {page}")
            time.sleep(float(os.environ.get("TOY_NAP", "0")))
            page, read = page + 1, read + 1
            store.replace(mark, str(page).encode())
        return {"pages": page, "at_last": read}

    def close(self) -> None:
        pass


PIPELINE = Pipeline(
    name="scholar", environment="vad", summary="A pipeline for the tests of the engine.", load=Processor, resumes=True
)
