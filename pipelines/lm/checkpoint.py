"""Checkpoints of language models, and what TensorBoard shows of their training."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional, Protocol

import torch

from pipelines.core.errors import UsageError, VoxarrayError
from pipelines.lm import models, parallel

_FREE = ("num_epochs", "early_stopping", "stopping", "device")
"""Settings that a training may change while it goes on."""


class Events(Protocol):
    """Takes figures of the training."""

    def add(self, step: int, name: str, value: float) -> None:
        """One figure at one step."""
        ...


class _Silent:
    def add(self, step: int, name: str, value: float) -> None:
        """Nobody looks."""


class _Board:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def add(self, step: int, name: str, value: float) -> None:
        """Write it."""
        self._writer.add_scalar(name, value, step)


@contextmanager
def events(folder: Path, settings: Mapping[str, Any], step: int) -> Iterator[Events]:
    """TensorBoard's event files in the folder, where the package is there; `step`: later ones of before are void."""
    if not parallel.is_first() or not settings.get("tensorboard", True):
        yield _Silent()
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        yield _Silent()
        return
    writer = SummaryWriter(str(folder), purge_step=step or None)
    try:
        yield _Board(writer)
    finally:
        writer.close()


def load(path: Path, settings: Optional[Mapping[str, Any]] = None) -> Optional[dict[str, Any]]:
    """A checkpoint's state; None if there is none. UsageError: damaged, or of a training with other settings."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        its = state["settings"]
    except Exception as error:
        raise UsageError(
            f"The checkpoint {path} cannot be read ({str(error).splitlines()[0][:200]}). It is written whole or not at "
            "all, so the disk lost or changed it, or it is no checkpoint of `voxarray lm`. Move it away to begin anew."
        ) from None
    if settings is not None:
        other = {name for name in {*its, *settings} - {*_FREE} if its.get(name) != settings.get(name)}
        if other:
            told = ", ".join(f"{name} {its.get(name)}, now {settings.get(name)}" for name in sorted(other))
            raise UsageError(f"{path} is of a training with other settings ({told}). Give this one another folder.")
    return state


def restore(folder: Path, device: torch.device) -> tuple[models.UnitModel, dict[str, Any]]:
    """The best model of a folder, ready to predict, and its settings. Raises UsageError."""
    path = folder / "best.pt" if folder.is_dir() else folder
    state = load(path)
    if state is None:
        raise UsageError(
            f"There is no checkpoint at {path}. `./voxarray lm UNITS_MANIFEST` trains one, and prints its folder."
        )
    model = models.build(state["settings"])
    model.load_state_dict(state["model"])
    return model.to(device).eval(), state["settings"]


def diverged(folder: Path, settings: Mapping[str, Any], step: int) -> VoxarrayError:
    """The paragraph for a loss that is no number."""
    return VoxarrayError(
        f"The loss is no longer a number at step {step} of {folder.name}: training has diverged. The last state before "
        f"it is kept in {folder}. Lower --learning-rate ({settings['learning_rate']:g}), or raise --warmup-steps "
        f"({settings['warmup_steps']})."
    )
