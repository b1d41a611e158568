"""Which runs answer for a file: several may write one manifest in turn, each adding its own fields."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Iterator

import msgspec

from pipelines.core import merge, paths
from pipelines.core.errors import VoxarrayError
from pipelines.core.merge import Receipt
from pipelines.core.run import Run


def publishers(path: Path, besides: Run) -> Iterator[tuple[Run, Receipt]]:
    """The other runs whose last merge wrote this file, with their receipts."""
    name = str(path).encode()
    for file in paths.runs().glob("*/merged.json"):
        with suppress(OSError, VoxarrayError, msgspec.MsgspecError):
            if file.parent != besides.folder and name in file.read_bytes():
                run = Run.open(file.parent.name)
                receipt = merge.last_receipt(run)
                if receipt is not None and any(output.path == str(path) for output in receipt.outputs):
                    yield run, receipt


def is_vouched_for(path: Path, besides: Run) -> bool:
    """Whether one of them that extends it, and did not write another in its place, left it with the size it has."""
    size = path.stat().st_size
    return any(
        output.path == str(path) and output.bytes == size
        for other, receipt in publishers(path, besides)
        if other.manifest.resolve() == path.resolve()
        for output in receipt.outputs
    )
