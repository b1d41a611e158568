"""What a run of `kmeans` publishes: the codebook fitted on the sample that the tasks took, as a model folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Optional

import msgspec
import numpy as np
from safetensors.numpy import save

from pipelines.core import store
from pipelines.core.manifest import Item
from pipelines.core.output import OutputWriter, published_by
from pipelines.core.pipeline import ErrorInfo, OutputFile
from pipelines.core.plan import Plan
from pipelines.kmeans.options import LOGMEL, made
from pipelines.units import models
from pipelines.units.fitting import Fitted, Reservoir, fit

log = logging.getLogger(__name__)


class _Sample(msgspec.Struct):
    sampled: int
    hashes: bytes
    features: bytes


_decode = msgspec.json.Decoder(_Sample).decode


class CodebookOutput:
    """The consumer of the merge. The codebook depends on the items and parameters alone, not on order or tasks."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._parameters = plan, plan.parameters
        folder = models.folder() / plan.parameters["name"]
        ours = published_by(plan.run_id)
        self._weights = OutputWriter(folder / models.WEIGHTS, ours)
        self._description = OutputWriter(folder / models.DESCRIPTION, ours)
        self._reservoir = Reservoir(plan.parameters["frames"], plan.parameters["width"])
        self._items = 0

    def open(self) -> None:
        """Nothing: files are written once the codebook is there."""

    def write(self, item: Item, result: Optional[bytes], error: Optional[ErrorInfo]) -> None:  # noqa: ARG002
        """Take one item's frames; items without a result have none."""
        if result is None:
            return
        sample = _decode(result)
        self._items += 1
        if sample.sampled:
            found = np.frombuffer(sample.hashes, "<u8")
            frames = np.frombuffer(sample.features, "<f4").reshape(len(found), -1)
            self._reservoir.add(item.key, found, frames)

    def publish(self) -> list[OutputFile]:
        """Fit, and publish weights, then description. Raises UsageError for too few frames."""
        fitted = fit(self._reservoir.sample(), self._parameters["clusters"], self._parameters["seed"])
        weights = save({"centroids": fitted.centroids})
        self._weights.write(weights, rows=len(fitted.centroids))
        self._description.write(store.pretty(self._described(fitted, len(weights))))
        for writer in (self._weights, self._description):
            writer.finish()
        published = [self._weights.publish(), self._description.publish()]
        log.info(
            "Fitted %d clusters on %d frames: mean squared distance %.6g, %.1f %% of the spread explained. Use them "
            "with `./voxarray encode MANIFEST DATASET --units %s`.",
            len(fitted.centroids),
            fitted.frames,
            fitted.inertia,
            100 * (1 - fitted.inertia / fitted.spread),
            self._parameters["name"],
        )
        return published

    def _described(self, fitted: Fitted, size: int) -> models.Description:
        parameters = self._parameters
        manifest = Path(self._plan.manifest)
        source = models.Source(manifest.name, store.sha256_of(manifest), manifest.stat().st_size, "fitted")
        config = {
            "clusters": len(fitted.centroids),
            "width": parameters["width"],
            "features": self._features(),
            "fitted": {
                "made": made(self._plan.source, parameters),
                "items": self._items,
                "frames": fitted.frames,
                "rounds": fitted.rounds,
                "inertia": fitted.inertia,
                "spread": fitted.spread,
                "smallest_cluster": int(fitted.counts.min()),
            },
        }
        return models.Description(
            models.FORMAT,
            "codebook",
            parameters["name"],
            self._weights.sha256,
            source,
            None,
            self._plan.created,
            config,
            size,
        )

    def _features(self) -> dict[str, Any]:
        if self._parameters["features"] == LOGMEL:
            from pipelines.units.logmel import DESCRIPTION

            return dict(DESCRIPTION)
        folder = Path(self._parameters["dense_model"])
        return {
            "kind": "hubert",
            "model": folder.name if folder.parent == models.folder() else str(folder),
            "layer": self._parameters["layer"],
            "digest": self._parameters["dense_digest"],
        }

    def abandon(self) -> None:
        """Remove the private files."""
        for writer in (self._weights, self._description):
            writer.abandon()
