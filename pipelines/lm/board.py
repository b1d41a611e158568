"""What TensorBoard shows of a training."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Optional

from pipelines.lm import parallel

log = logging.getLogger(__name__)


class Board:
    """Takes figures of a training; without TensorBoard's package it keeps none."""

    def __init__(self, writer: Optional[Any]) -> None:
        self._writer = writer

    def add(self, step: int, name: str, value: float) -> None:
        """One figure at one step."""
        if self._writer is not None:
            self._writer.add_scalar(name, value, step)


@contextmanager
def opened(folder: Path, step: int) -> Iterator[Board]:
    """Event files in the folder. What an attempt that was killed wrote of `step` and later ones is void."""
    writer = _writer(folder, step) if parallel.rank() == 0 else None
    try:
        yield Board(writer)
    finally:
        if writer is not None:
            writer.close()


def _writer(folder: Path, step: int) -> Optional[Any]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        log.warning("No curves for TensorBoard: %s. The leaderboard has them all the same.", error)
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
