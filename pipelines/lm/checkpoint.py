"""The state of a training (`last.pt`), and the place it has to itself.

`last.pt` holds everything that the steps to come depend on, and is replaced whole. The best model is a file of its own
(`best.safetensors`), written before the `last.pt` that knows of it: whatever is killed in between is done again, and
comes to the same.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Mapping, Optional

import msgspec
import torch

from pipelines.core import store
from pipelines.core.errors import UsageError

LAST = "last.pt"


class Progress(msgspec.Struct):
    """Where a training stands. `update`: updates of this epoch that are done; `waited`: epochs since the best.

    `nats`, `tokens`: sums over this epoch; `tokens_computed`: those that were read, with the padding of their batches;
    `history`: one entry an epoch; `seconds`: time spent, over all attempts.
    """

    epoch: int = 0
    update: int = 0
    step: int = 0
    nats: float = 0.0
    tokens: int = 0
    tokens_read: int = 0
    tokens_computed: int = 0
    best: float = math.inf
    waited: int = 0
    seconds: float = 0.0
    finished: bool = False
    history: list[dict[str, float]] = []


class State(msgspec.Struct):
    """A `last.pt`: `data` is the digest of what it is trained on; its last word, the units', earlier versions lack."""

    model: dict[str, Any]
    optimiser: dict[str, Any]
    progress: Progress
    settings: dict[str, Any]
    data: str


def save(folder: Path, state: State) -> None:
    """Replace `last.pt`, whole or not at all."""
    content = {name: getattr(state, name) for name in State.__struct_fields__}
    # JSON knows no infinity; this is read by torch, which does.
    content["progress"] = {name: getattr(state.progress, name) for name in Progress.__struct_fields__}
    with store.writing(folder / LAST) as file:
        torch.save(content, file)


def load(folder: Path, settings: Mapping[str, Any], data: str) -> Optional[State]:
    """The state to go on from; None where none was saved. UsageError: damaged, or of another training."""
    path = folder / LAST
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = State(**{**content, "progress": Progress(**content["progress"])})
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes torch raise
        raise UsageError(
            f"The checkpoint {path} cannot be read ({str(error).splitlines()[0][:200]}). It is written whole or not "
            "at all, so the disk lost or changed it. Move it away, and this training begins anew."
        ) from None
    before = state.settings
    other = [name for name in sorted({*before, *settings}) if before.get(name) != settings.get(name)]
    if other:
        told = ", ".join(f"{name} {before.get(name)}, now {settings.get(name)}" for name in other)
        raise UsageError(f"{path} is of a training with other settings ({told}). Move it away to begin anew.")
    if state.data not in (data, data.rpartition(" ")[0]):
        raise _other_data(f"{path} is of a training on other data", "Going on would mix the two")
    return state


def share(note: Path, data: str) -> None:
    """Say in a run's note what its models are trained on; first wins. UsageError where it says something else."""
    store.ensure(note, f"{data}\n".encode())
    if note.read_text(encoding="utf-8").strip() != data:
        what = f"The first model of this run to be trained is of other data, as {note} tells"
        raise _other_data(what, "Their figures could not be compared")


def _other_data(what: str, why: str) -> UsageError:
    return UsageError(
        f"{what}: since then, items came or went, or their units or groups changed. {why}. Give the command again "
        "with --fresh to begin anew with the data as they are; the earlier checkpoints are kept aside."
    )


def claim(folder: Path, stamp: str) -> None:
    """Make the folder this run's own: what an earlier run (before --fresh) left is moved aside, and litter removed."""
    note = folder / "run.txt"
    try:
        before: Optional[str] = note.read_text(encoding="utf-8")
    except OSError:
        before = None
    if before not in (None, stamp):
        os.replace(folder, folder.with_name(f"{folder.name}.until-{stamp.replace(':', '')}"))
    if before != stamp:
        store.replace(note, stamp.encode())
    for path in folder.iterdir():
        if store.is_abandoned(path):
            path.unlink(missing_ok=True)
