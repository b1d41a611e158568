"""The nearest centroid of each frame: exactly, fast, and in no way dependent on how frames are batched.

Distances come from one matrix product, |c|² − 2 x·c, whose rounding depends on the product's shape, the machine and
its threads. A bound on that rounding is known; where two centroids are closer to a tie than it allows, and only there
(a few frames in a thousand), distances are computed again in float64 by differences. So the unit of a frame is its
nearest centroid, ties to the lowest index, whatever computed it; the features themselves are all that can differ.
"""

from __future__ import annotations

from typing import Union

import torch
from torch import Tensor

from pipelines.core.errors import UsageError
from pipelines.units.models import ModelInfo

_CELLS = 1 << 19
"""Distances computed at a time on a CPU: 2 MB, so that they stay in a core's cache …"""
_CELLS_ON_GPU = 1 << 26
_PAIRS = 1 << 22
"""Numbers at most in the differences of one repeated computation."""


class Codebook:
    """Centroids (K, D). `assign` is safe to call from several threads."""

    def __init__(self, centroids: Tensor, device: Union[str, torch.device] = "cpu") -> None:
        """Keep them in float32. Raises UsageError for what is no codebook."""
        if centroids.dim() != 2 or not len(centroids) or not bool(torch.isfinite(centroids).all()):
            raise UsageError(
                f"A codebook is a matrix of finite numbers, one row a centroid; this one has the shape "
                f"{tuple(centroids.shape)}, or holds NaN. Import or fit it again."
            )
        self.centroids = centroids.detach().to(device=device, dtype=torch.float32)
        self.size, self.width = self.centroids.shape
        wide = self.centroids.double()
        # Distances do not change with the origin; rounding does, and is least where that lies amid the centroids.
        self._origin = wide.mean(dim=0).float()
        moved = wide - self._origin.double()
        squares = moved.square().sum(dim=1)
        self._columns = moved.float().t().contiguous()
        self._squares = squares.float()
        self._longest = float(squares.max().sqrt())

    @classmethod
    def load(cls, info: ModelInfo, device: Union[str, torch.device] = "cpu") -> Codebook:
        """The codebook of a model folder."""
        from safetensors.torch import load_file

        return cls(load_file(info.weights)["centroids"], device)

    @torch.inference_mode()
    def assign(self, features: Tensor) -> Tensor:
        """Features (…, D) → indices of the nearest centroids (…), int64. Memory beyond both is bounded."""
        if features.shape[-1] != self.width:
            raise UsageError(
                f"The features have {features.shape[-1]} numbers a frame, and the codebook's centroids {self.width}: "
                "it was made for another model or layer."
            )
        rows = features.reshape(-1, self.width).float()
        step = max(1, (_CELLS_ON_GPU if rows.is_cuda else _CELLS) // self.size)
        found = [self._nearest(rows[start : start + step]) for start in range(0, len(rows), step)]
        units = torch.cat(found) if found else torch.empty(0, dtype=torch.int64, device=features.device)
        return units.reshape(features.shape[:-1])

    def _nearest(self, rows: Tensor) -> Tensor:
        moved = rows - self._origin
        scores = torch.addmm(self._squares, moved, self._columns, alpha=-2)  # distance² less |x|²
        best, units = scores.min(dim=1)
        near = scores <= (best + self._slack(moved))[:, None]
        close = near.sum(dim=1) > 1
        if bool(close.any()):
            units[close] = self._settle(rows[close], near[close])
        return units

    def _slack(self, moved: Tensor) -> Tensor:
        """By how much two scores of a row may be off together, (rows,): the standard bound of a sum of products."""
        is_coarse = moved.is_cuda and torch.backends.cuda.matmul.allow_tf32
        unit = 2.0**-11 if is_coarse else 2.0**-24
        reach = moved.norm(dim=1) * self._longest
        slack: Tensor = 2 * unit * ((2 * (self.width + 4)) * reach + 4 * self._longest**2)
        return slack

    def _settle(self, rows: Tensor, near: Tensor) -> Tensor:
        """The nearest of the centroids that `near` (rows, K) marks, by differences in float64; the first of equals."""
        row, candidate = near.nonzero(as_tuple=True)  # by row, then by index
        step = max(1, _PAIRS // self.width)
        parts = [
            (rows[row[start : start + step]].double() - self.centroids[candidate[start : start + step]].double())
            .square()
            .sum(dim=1)
            for start in range(0, len(row), step)
        ]
        distances = torch.cat(parts)
        least = torch.full((len(rows),), torch.inf, dtype=torch.float64, device=rows.device)
        least.scatter_reduce_(0, row, distances, "amin")
        losing = distances > least[row]
        lowest = torch.full((len(rows),), self.size, dtype=torch.int64, device=rows.device)
        lowest.scatter_reduce_(0, row, candidate.masked_fill(losing, self.size), "amin")
        return lowest
