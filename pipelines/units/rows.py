"""Units that a manifest's rows hold or name: packed, in files of their own, or as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional, Sequence

import numpy as np

from pipelines.audio import RATE
from pipelines.core.errors import ItemError, UsageError
from pipelines.core.manifest import Item
from pipelines.units.packed import PackedUnits, Units

_WINDOWS = 2.5
"""A recording is longer than its frames' hops by less than so many hops."""


class UnitRows:
    """Reads the units of items. `name` is what messages call the units.

    `codebook_digest`: packed units that are known to be of another codebook are refused.
    """

    def __init__(self, vocabulary_size: int, name: str, hop: int = 320, codebook_digest: Optional[str] = None) -> None:
        self._size, self._name, self._hop, self._digest = vocabulary_size, name, hop, codebook_digest
        self._stores: dict[str, PackedUnits] = {}

    def read(self, items: Sequence[Item]) -> tuple[list[Optional[Exception]], list[Units], list[Optional[int]]]:
        """For each item: what is wrong with it, its units (one a frame), and its samples at 16 kHz where known."""
        faults: list[Optional[Exception]] = []
        found: list[Units] = []
        for item in items:
            try:
                units = self._checked(self._frames(item.fields()))
            except Exception as error:  # noqa: BLE001 - one row's trouble must not touch the others
                faults.append(error)
                units = np.empty(0, np.uint16)
            else:
                faults.append(None)
            found.append(units)
        return faults, found, [self._samples(item, units) for item, units in zip(items, found)]

    def _samples(self, item: Item, units: Units) -> Optional[int]:
        """The length of the recording that the units are of; None where they cannot be all of it, one a frame."""
        if item.duration is None:
            return None
        samples = round(item.duration * RATE)
        beyond = samples - len(units) * self._hop  # the end that makes no whole frame; a short one is padded to one
        return samples if (0 if len(units) > 1 else -self._hop) <= beyond < _WINDOWS * self._hop else None

    def _frames(self, fields: dict[str, Any]) -> Any:
        where, row = fields.get("units_filepath"), fields.get("units_row")
        if isinstance(where, str) and where.endswith(".pt"):  # a row may have been packed before, and say so still
            return tensor_of(Path(where))
        if isinstance(where, str):
            return self._packed(where, row)
        if "units" not in fields:
            raise ItemError("The row has no units: neither `units_filepath` (with `units_row`) nor `units`.")
        units = _integers(fields["units"], "units")
        if "durations" not in fields:
            return units
        durations = _integers(fields["durations"], "durations")
        if len(durations) != len(units):
            raise ItemError(f"The row has {len(units)} units and {len(durations)} durations; each needs one.")
        if len(durations) and int(durations.min()) < 1:
            raise ItemError("The row has a duration below 1 frame.")
        return np.repeat(units, durations)

    def _packed(self, where: str, row: Any) -> Units:
        if where not in self._stores:
            try:
                self._stores[where] = PackedUnits(Path(where))
            except UsageError as error:
                raise ItemError(str(error)) from None
        packed = self._stores[where]
        its = packed.description
        if self._digest and its.codebook_digest and its.codebook_digest != self._digest:
            raise ItemError(
                f"The row's units in {where} are of the codebook {its.name} ({its.codebook_digest[:8]}), and not of "
                f"{self._name} ({self._digest[:8]}): the row was encoded with another codebook than others, or the "
                "codebook was made anew since, or the command names another codebook or model. Encode the manifest "
                "again, or name what knows these units."
            )
        if not isinstance(row, int) or not 0 <= row < len(packed):
            raise ItemError(f"`units_row` is {row!r}, and the packed units have rows 0 to {len(packed) - 1}.")
        return packed.frames(row)

    def _checked(self, units: Any) -> Units:
        if not len(units):
            raise ItemError("The row's units are empty: there is nothing to say.")
        if int(units.min()) < 0 or int(units.max()) >= self._size:
            worst = units.max() if int(units.max()) >= self._size else units.min()
            raise ItemError(
                f"The row has the unit {int(worst)}, and {self._name} has units 0 to {self._size - 1}: they are "
                "of another codebook, or special tokens of a language model are among them."
            )
        return np.asarray(units, np.uint16)


def _integers(value: Any, name: str) -> Any:
    """A string of integers (as GSLM writes them) or a list, as an array of int64."""
    try:
        listed = [int(each) for each in value.split()] if isinstance(value, str) else list(value)
        array = np.array(listed, np.int64) if all(type(each) is int for each in listed) else None
    except (TypeError, ValueError, OverflowError):
        array = None
    if array is None:
        raise ItemError(f"The row's `{name}` are neither a list of integers nor a string of them.")
    return array


def tensor_of(path: Path) -> Any:
    """The tensor of a `.pt` file, read without running anything that it may hold."""
    import torch

    try:
        tensor = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ItemError("The row's file of units is not there.") from None
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes torch raise
        reason = str(error).splitlines()[0][:200]
        raise ItemError(f"The row's file of units cannot be read as a tensor: {reason}") from None
    if not isinstance(tensor, torch.Tensor) or tensor.dim() != 1 or tensor.is_floating_point():
        raise ItemError("The row's file of units holds no one-dimensional tensor of integers.")
    return tensor.to(torch.int64).numpy()
