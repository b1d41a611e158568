"""The options of `kmeans` that change results. Imports nothing heavy."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, Mapping, NamedTuple, Optional

from pipelines.core import manifest, paths
from pipelines.core.errors import UsageError
from pipelines.core.pipeline import Parameters
from pipelines.units import models

LOGMEL = "logmel"
_RATE, _WINDOW, _HOP, _BANDS = 16_000, 400, 320, 80
"""Samples a second, of a frame, between frames; and log-mel bands."""
_MOST_CLUSTERS = 65_536
_A_CLUSTER, _LEAST, _MOST = 256, 100_000, 500_000
"""Frames to fit on where --frames does not say: so many a cluster, within these limits."""
_STEPS = 8
"""Sampling rates are rounded up to powers of the 8th root of 2, so that a manifest may change a little."""


class _Features(NamedTuple):
    """What is clustered. `model` is the encoder's folder; None, and so the others, for log-mel bands."""

    kind: str
    model: Optional[str]
    name: Optional[str]
    digest: Optional[str]
    layer: Optional[int]
    width: int
    hop: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the operand NAME and the options."""
    parser.add_argument("name", metavar="NAME", help="the codebook's name, for `encode --units NAME`")
    group = parser.add_argument_group("k-means")
    group.add_argument(
        "--features",
        metavar="NAME",
        default=LOGMEL,
        help=f"what is clustered: {LOGMEL} (80 log-mel bands every 20 ms, needs no model), or an encoder "
        f"(hubert-base-ls960, mhubert-base-vp_mls_cv_8lang, …) or its folder (default: {LOGMEL})",
    )
    group.add_argument("--layer", type=int, metavar="L", help="layer of the encoder, from 1 (default: the published)")
    group.add_argument("--clusters", type=int, default=100, metavar="K", help="how many units (default: 100)")
    group.add_argument(
        "--frames",
        type=int,
        metavar="N",
        help=f"frames to fit on, a sample of all (default: {_A_CLUSTER} a cluster, at least {_LEAST:,}, at most "
        f"{_MOST:,})",
    )
    group.add_argument("--seed", type=int, default=0, help="of the sample and of the first centroids (default: 0)")


def parameters(options: argparse.Namespace) -> Parameters:
    """The validated options, every default filled in, and the share of frames to sample. Raises UsageError."""
    models.verify_name(options.name)
    features = _features(options.features, options.layer)
    clusters = options.clusters
    if not 2 <= clusters <= _MOST_CLUSTERS:
        raise UsageError(f"--clusters is {clusters:,}; there may be 2 to {_MOST_CLUSTERS:,}. 50 to 2,000 are usual.")
    frames = options.frames
    if frames is None:
        frames = max(clusters, min(_MOST, max(_LEAST, _A_CLUSTER * clusters)))
    if frames < clusters:
        raise UsageError(
            f"--frames is {frames:,}, fewer than the {clusters:,} clusters; {_A_CLUSTER} a cluster are a good sample. "
            "Leave it out for the default."
        )
    if not 0 <= options.seed < 2**32:
        raise UsageError(f"--seed is {options.seed}, and must be from 0 to 2³² − 1.")
    source = paths.absolute(options.source)
    values: dict[str, Any] = {
        "name": options.name,
        "features": features.kind,
        "dense_model": features.model,
        "dense_name": features.name,
        "dense_digest": features.digest,
        "layer": features.layer,
        "width": features.width,
        "hop": features.hop,
        "clusters": clusters,
        "frames": frames,
        "seed": options.seed,
        "rate": _rate(source, features.hop, frames, clusters),
    }
    _verify_free(options.name, made(str(source), values))
    return values


def made(source: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a fitted codebook's description says of its making: the manifest, and the parameters that matter."""
    names = ("features", "dense_digest", "layer", "clusters", "frames", "seed", "rate")
    return {"manifest": source, **{name: values[name] for name in names}}


def _features(name: str, layer: Optional[int]) -> _Features:
    if name == LOGMEL:
        if layer is not None:
            raise UsageError(f"--layer {layer} belongs to an encoder (--features NAME); log-mel bands have no layers.")
        return _Features(LOGMEL, None, None, None, None, _BANDS, _HOP)
    info = models.describe(name, "hubert")
    layers = info.config["layers"]
    chosen = info.layer if layer is None else layer
    if chosen is None:
        raise UsageError(
            f"Which layer of {info.name}? Say it with --layer L, from 1 to {layers}; for HuBERT base, 6 and 9 are "
            "usual (6 of 12 for units that a language model learns, 9 for those nearest to phones)."
        )
    if not 1 <= chosen <= layers:
        raise UsageError(f"--layer is {chosen}, and {info.name} has layers 1 to {layers}.")
    return _Features(
        "hubert", str(info.folder), info.name, info.digest, chosen, info.config["width"], info.config["hop"]
    )


def _rate(source: Path, hop: int, frames: int, clusters: int) -> float:
    """The share of frames to sample so that there are `frames` of them, all but surely; 1 where there are too few."""
    total = sum(
        max(1, (round(each.duration * _RATE) - _WINDOW) // hop + 1)
        for each in manifest.items(source, keyed=False)
        if each.duration is not None and 0 < each.duration < math.inf
    )
    if total < clusters:
        raise UsageError(
            f"{source} holds {total:,} frames by its durations, fewer than the {clusters:,} clusters that are asked "
            "for. Name a larger manifest, or fewer with --clusters."
        )
    # The number that a share gives varies by its square root; 2 % are for durations that are a little wrong.
    share = 1.02 * (frames + 6 * math.sqrt(frames)) / total
    return min(1.0, math.pow(2.0, math.ceil(math.log2(share) * _STEPS) / _STEPS))


def _verify_free(name: str, wanted: Mapping[str, Any]) -> None:
    """Raise UsageError where the name belongs to a model that this very command did not make."""
    if not models.exists(name):
        return
    there = models.describe(name)
    if there.config.get("fitted", {}).get("made") != wanted:
        raise UsageError(
            f"There is a model named {name} already, made otherwise ({there.folder}), and units of the two must not "
            "be mixed up. Give this one another NAME; or remove that folder, if nothing needs it any more."
        )
