"""Files of trained models: safetensors, whose header says what the model is and can be read without torch.

Format: 8 bytes (little-endian: the header's length), a JSON header, the weights; the header's `__metadata__` has a
field `voxarray` with the description (JSON). Nothing in such a file can run when it is loaded.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from pipelines.core import store
from pipelines.core.errors import UsageError

if TYPE_CHECKING:
    import torch

    from pipelines.language.models import UnitModel

BEST = "best.safetensors"
FORMAT = 1
_FIELD = "voxarray"
_LARGEST_HEADER = 1 << 24


class UnitsOf(msgspec.Struct, frozen=True):
    """The units that a model was trained on. `raw`: one a frame; else runs of equal units are one unit."""

    name: str
    vocabulary_size: int
    rate: float
    raw: bool
    codebook: str = ""
    codebook_digest: str = ""


class Description(msgspec.Struct, frozen=True):
    """What a file says of its model. `figures`: of validation, when it was written; `data`: digest of the data."""

    format: int
    settings: dict[str, Any]
    units: UnitsOf
    figures: dict[str, float]
    step: int
    data: str = ""


class Trained(NamedTuple):
    """A file of a model, and its description."""

    path: Path
    description: Description


def find(name: str) -> Path:
    """The file that the user means: itself, the best of a training's folder, or of a grid's. Raises UsageError."""
    path = Path(name).expanduser().absolute()
    if path.is_file() and path.suffix == ".safetensors":
        return path
    if (path / BEST).is_file():
        return path / BEST
    board = path / "leaderboard.json"
    if board.is_file():
        first = next(iter(board.read_bytes().splitlines()), b"{}")  # the best comes first
        best = msgspec.json.decode(first, type=dict[str, Any]).get("path")
        if best:
            return Path(best)
    within = sorted(path.glob(f"*/{BEST}"))[:5] if path.is_dir() else []
    if within:
        raise UsageError(
            f"{path} holds several models, and no leaderboard.json that says which is best: its run is not merged "
            f"yet. Name one, like {within[0].parent}, or merge first (`./voxarray merge {path.name}`)."
        )
    raise UsageError(
        f"There is no trained model at {path}: a folder with {BEST} is one, and so is that file. `./voxarray lm "
        "UNITS_MANIFEST` trains one below output/checkpoints; the leaderboard there has each one's folder."
    )


def describe(path: Path) -> Trained:
    """What the model of a file is. Needs no torch. Raises UsageError where it is not one of voxarray's."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _LARGEST_HEADER:
                raise ValueError("its header is no header")
            header = msgspec.json.decode(file.read(length))
        description = msgspec.json.decode(header["__metadata__"][_FIELD], type=Description)
    except (OSError, ValueError, KeyError, TypeError, struct.error, msgspec.MsgspecError) as error:
        raise UsageError(
            f"{path} is no model that `voxarray lm` trained, or it is damaged "
            f"({str(error)[:120] or 'it is cut off'}). It is written whole or not at all; copy it anew, or train "
            "again."
        ) from None
    return Trained(path, description)


def save(path: Path, model: UnitModel, description: Description) -> None:
    """Write a model's file, whole or not at all."""
    from safetensors.torch import save as packed

    weights = {name: weight.detach().cpu().contiguous() for name, weight in model.state_dict().items()}
    data = packed(weights, {_FIELD: msgspec.json.encode(description, order="deterministic").decode()})
    store.replace(path, data)


def load(trained: Trained, device: torch.device) -> UnitModel:
    """The model of a file, ready to predict. Raises UsageError for a file that is cut off."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from pipelines.language import models

    model = models.build(trained.description.settings)
    try:
        model.load_state_dict(load_file(trained.path))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise UsageError(
            f"The weights in {trained.path} cannot be read ({str(error).splitlines()[0][:160]}): the file was cut off "
            "or changed. It is written whole or not at all; copy it anew, or train again."
        ) from None
    return model.to(device).eval()
