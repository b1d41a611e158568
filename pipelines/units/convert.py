"""From a checkpoint's names to ours, every key accounted for: mapped, or dropped for a stated reason, or refused."""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

from pipelines.core.errors import listed
from pipelines.units.checkpoint import CheckpointError

Shapes = Mapping[str, Tuple[int, ...]]


class Converted(NamedTuple):
    """What becomes of a checkpoint: a model's kind, config and tensors, and what was left out and why."""

    kind: str
    config: Dict[str, Any]
    tensors: Dict[str, Any]
    dropped: Dict[str, str]


def dropped_because(key: str, reasons: Mapping[str, str]) -> Optional[str]:
    """Why a key is left out: the reason of the longest beginning of it that has one."""
    for start in sorted(reasons, key=len, reverse=True):
        if key == start or (start.endswith(".") and key.startswith(start)):
            return reasons[start]
    return None


def rename(
    what: str, state: Mapping[str, Any], name_of: Callable[[str], Optional[str]], reasons: Mapping[str, str]
) -> Tuple[Dict[str, Any], Dict[str, str]]:
    """The tensors of `state` under our names, and the keys that were dropped, each with its reason.

    `what` is the file, for messages. Raises CheckpointError that names every key that is neither.
    """
    renamed: Dict[str, Any] = {}
    dropped: Dict[str, str] = {}
    unknown: List[str] = []
    for key, value in state.items():
        reason, name = dropped_because(key, reasons), name_of(key)
        if reason is not None:
            dropped[key] = reason
        elif name is None or name in renamed:
            unknown.append(key)
        else:
            renamed[name] = value
    if unknown:
        raise CheckpointError(
            f"{what} holds {len(unknown):,} weights that this model has no place for: "
            f"{listed(unknown, len(unknown))}. It computes something else than its "
            "configuration says, and would give other results here. Nothing was imported."
        )
    return renamed, dropped


def verify(what: str, tensors: Mapping[str, Any], shapes: Shapes) -> None:
    """Raise CheckpointError unless `tensors` are exactly those of `shapes`, in shape too, and finite."""
    absent = [name for name in shapes if name not in tensors]
    if absent:
        raise CheckpointError(
            f"{what} lacks {len(absent):,} weights that its configuration asks for: {listed(absent, len(absent))} (in "
            "voxarray's names). It is incomplete, or its configuration is another model's. Nothing was imported."
        )
    extra = [name for name in tensors if name not in shapes]
    if extra:
        raise CheckpointError(
            f"{what} holds {len(extra):,} weights that its configuration does not know: {listed(extra, len(extra))} "
            "(in voxarray's names). Its configuration is another model's. Nothing was imported."
        )
    wrong = [
        f"{name} is {tuple(tensors[name].shape)}, not {shape}"
        for name, shape in shapes.items()
        if tuple(tensors[name].shape) != shape
    ]
    if wrong:
        raise CheckpointError(
            f"{what} has {len(wrong):,} weights of another shape than its configuration says: "
            f"{listed(wrong, len(wrong))}. Its configuration is another model's. Nothing was imported."
        )
    infinite = [name for name in shapes if not bool(tensors[name].isfinite().all())]
    if infinite:
        raise CheckpointError(
            f"{what} has infinite or undefined numbers in {listed(infinite, len(infinite))}: its training diverged, "
            "or the file is damaged. Nothing was imported."
        )


def fold_weight_norm(tensors: Dict[str, Any], name: str, keep: int) -> None:
    """Put `NAME.weight` in place of `NAME.weight_g` and `NAME.weight_v`: g · v / |v|, the norm over all but `keep`.

    In float64; what remains is one rounding.
    """
    scale, direction = tensors.get(f"{name}.weight_g"), tensors.get(f"{name}.weight_v")
    if scale is None or direction is None:
        return
    shape = [size if axis == keep else 1 for axis, size in enumerate(direction.shape)]
    if list(scale.shape) != shape:
        raise CheckpointError(
            f"{name}.weight_g has shape {tuple(scale.shape)}, and beside {name}.weight_v it must be {tuple(shape)}: "
            "the weight norm is over other dimensions than this model's. Nothing was imported."
        )
    axes = [axis for axis in range(direction.dim()) if axis != keep]
    exact = direction.double()
    folded = scale.double() * exact / exact.square().sum(axes, keepdim=True).sqrt()
    del tensors[f"{name}.weight_g"], tensors[f"{name}.weight_v"]
    tensors[f"{name}.weight"] = folded.float()


def hubert_shapes(config: Mapping[str, Any]) -> Dict[str, Tuple[int, ...]]:  # noqa: C901 - a list, with conditions
    """The tensors of a HuBERT of this config, and their shapes."""
    width, ffn = config["width"], config["ffn"]
    shapes: Dict[str, Tuple[int, ...]] = {}

    def linear(name: str, out: int, into: int) -> None:
        shapes.update({f"{name}.weight": (out, into), f"{name}.bias": (out,)})

    def norm(name: str, size: int) -> None:
        shapes.update({f"{name}.weight": (size,), f"{name}.bias": (size,)})

    into = 1
    for index, (channels, kernel, _) in enumerate(config["conv_layers"]):
        name = f"extractor.{index}"
        shapes[f"{name}.weight"] = (channels, into, kernel)
        if config["conv_bias"]:
            shapes[f"{name}.bias"] = (channels,)
        if config["extractor_mode"] == "layer_norm" or index == 0:
            norm(f"{name}.norm", channels)
        into = channels
    if config["features_norm"]:
        norm("features_norm", into)
    if config["projected"]:
        linear("projection", width, into)
    shapes["position.weight"] = (width, width // config["conv_pos_groups"], config["conv_pos"])
    shapes["position.bias"] = (width,)
    if config["conv_pos_batch_norm"]:
        shapes.update({f"position.norm.{part}": (width,) for part in ("weight", "bias", "mean", "variance")})
    norm("encoder_norm", width)
    for index in range(config["layers"]):
        name = f"layers.{index}"
        for projection in ("query", "key", "value", "out"):
            linear(f"{name}.{projection}", width, width)
        linear(f"{name}.expand", ffn, width)
        linear(f"{name}.contract", width, ffn)
        norm(f"{name}.attention_norm", width)
        norm(f"{name}.final_norm", width)
    return shapes


def verify_hubert(what: str, config: Mapping[str, Any]) -> None:
    """Raise CheckpointError where the numbers of a config cannot be a model's."""
    width, heads, groups = config["width"], config["heads"], config["conv_pos_groups"]
    if width % heads or width % groups:
        raise CheckpointError(
            f"{what} is configured with width {width}, {heads} heads and {groups} groups of the positional "
            "convolution; the width must be a multiple of both. Its configuration is damaged."
        )
    if config["extractor_mode"] not in ("group_norm", "layer_norm"):
        raise CheckpointError(f"{what} has a feature extractor of kind {config['extractor_mode']!r}, unknown here.")


def hop_of(layers: List[List[int]]) -> int:
    """Samples a frame."""
    return math.prod(stride for _, _, stride in layers)
