"""Unit HiFi-GAN vocoders as speech-resynthesis saves them: generator.pt, config.json, speakers.txt, styles.txt.

Layout: textless/vocoders/hifigan/generator.py of github.com/facebookresearch/textlesslib.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from pipelines.units import convert
from pipelines.units.checkpoint import CheckpointError, is_tensor_map, read_torch
from pipelines.units.convert import Converted

_USED = (
    "upsample_rates",
    "upsample_kernel_sizes",
    "upsample_initial_channel",
    "resblock_kernel_sizes",
    "resblock_dilation_sizes",
    "embedding_dim",
    "model_in_dim",
)
_WEIGHT_NORM = re.compile(r"(.+)\.parametrizations\.weight\.original([01])")


def convert_files(
    generator: Path, config: Path, speakers: Optional[Path] = None, styles: Optional[Path] = None
) -> Converted:
    """The vocoder in these files. Raises CheckpointError."""
    values = _read_config(config)
    state = read_torch(generator)
    if not isinstance(state, dict) or not is_tensor_map(state.get("generator")):
        held = ", ".join(map(repr, list(state)[:6])) if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(
            f"{generator} holds no generator of HiFi-GAN: it has {held}. The file to import is published as "
            "generator.pt or g_00400000 (not do_…, which holds the discriminators)."
        )
    made = _config(config, values)
    made["speakers"] = _names(values, "multispkr", speakers, ("speaker", "num_speakers", 200))
    made["styles"] = _names(values, "multistyle", styles, ("style", "num_styles", 100))
    weights = {_plain(key): value for key, value in state["generator"].items()}
    shapes = _shapes(made, values)
    wanted = {name for name in shapes if not name.endswith(".weight")} | set(shapes)
    wanted |= {f"{name}_{part}" for name in shapes for part in "gv" if name.endswith(".weight")}
    tensors, dropped = convert.rename(str(generator), weights, lambda key: key if key in wanted else None, {})
    for name in [name[: -len(".weight_g")] for name in tensors if name.endswith(".weight_g")]:
        convert.fold_weight_norm(tensors, name, keep=0)
    convert.verify(str(generator), tensors, shapes)
    return Converted("hifigan", made, tensors, dropped)


def _plain(key: str) -> str:
    """A weight norm's key in torch's older spelling."""
    match = _WEIGHT_NORM.fullmatch(key)
    return f"{match[1]}.weight_{'gv'[int(match[2])]}" if match else key


def _read_config(path: Path) -> Dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as the vocoder's configuration ({error}). It is the config.json beside "
            "generator.pt."
        ) from None
    absent = [
        name for name in (*_USED[:-1], "num_embeddings") if name not in (values if isinstance(values, dict) else {})
    ]
    if absent:
        raise CheckpointError(
            f"{path} lacks {', '.join(absent)}: it is not the configuration of a unit HiFi-GAN, which is the "
            "config.json beside generator.pt."
        )
    return dict(values)


def _config(path: Path, values: Mapping[str, Any]) -> Dict[str, Any]:
    if values.get("f0") or values.get("f0_quant_num_bin"):
        raise CheckpointError(
            f"{path} describes a vocoder that takes the pitch (f0) beside the units; voxarray stores no pitch, so it "
            "cannot be used. Those of textlesslib take units alone: `./voxarray import-checkpoint --help`."
        )
    if values.get("embedder_params"):
        raise CheckpointError(
            f"{path} describes a vocoder that takes a vector of the speaker from another model (embedder_params), "
            "which is not computed here. Those of textlesslib name their speakers."
        )
    if str(values.get("resblock", "1")) != "1":
        raise CheckpointError(f"{path} has residual blocks of type {values['resblock']!r}; type '1' is computed here.")
    made: Dict[str, Any] = {name: values[name] for name in _USED[:-1]}
    if len(made["upsample_rates"]) != len(made["upsample_kernel_sizes"]):
        raise CheckpointError(f"{path} has upsample_rates and upsample_kernel_sizes of different lengths.")
    if any((kernel - rate) % 2 for rate, kernel in zip(made["upsample_rates"], made["upsample_kernel_sizes"])):
        raise CheckpointError(f"{path} has an upsampling whose kernel is not centred: its length would not be exact.")
    made["model_in_dim"] = int(values.get("model_in_dim", made["embedding_dim"]))
    hop = math.prod(made["upsample_rates"])
    if int(values.get("code_hop_size", hop)) != hop:
        raise CheckpointError(
            f"{path} says {values['code_hop_size']} samples a unit (code_hop_size), and its upsampling gives {hop}."
        )
    made["sample_rate"] = int(values.get("sampling_rate", 16_000))
    made["hop"], made["vocabulary_size"] = hop, int(values["num_embeddings"])
    made["duration_predictor"] = bool(values.get("dur_predictor_params"))
    return made


def _names(
    values: Mapping[str, Any], switch: str, path: Optional[Path], words: Tuple[str, str, int]
) -> Optional[List[str]]:
    """The names of the speakers or styles; by number where there is no file. None: the vocoder has but one."""
    word, count_key, usual = words
    if not values.get(switch):
        return None
    count = int(values.get(count_key, usual))
    if path is None:
        return [str(number) for number in range(count)]
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as the names of the {word}s, one a line: {error}.") from None
    if len(found) > count or len(set(found)) != len(found):
        raise CheckpointError(
            f"{path} names {len(found)} {word}s ({len(set(found))} different), and the vocoder has {count}: it "
            "belongs to another vocoder."
        )
    return found


def _shapes(made: Mapping[str, Any], values: Mapping[str, Any]) -> Dict[str, Tuple[int, ...]]:
    """The tensors of a vocoder of this config, weight norm folded."""
    shapes: Dict[str, Tuple[int, ...]] = {}
    channels, width = int(made["upsample_initial_channel"]), int(made["embedding_dim"])

    def convolution(name: str, shape: Tuple[int, ...], bias: int) -> None:
        shapes.update({f"{name}.weight": shape, f"{name}.bias": (bias,)})

    convolution("conv_pre", (channels, made["model_in_dim"], 7), channels)
    kernels, dilations = made["resblock_kernel_sizes"], made["resblock_dilation_sizes"]
    for index, kernel in enumerate(made["upsample_kernel_sizes"]):
        out = channels // 2
        convolution(f"ups.{index}", (channels, out, kernel), out)
        channels = out
        for block, (size, steps) in enumerate(zip(kernels, dilations)):
            for number in range(len(steps)):
                for which in ("convs1", "convs2"):
                    name = f"resblocks.{index * len(kernels) + block}.{which}.{number}"
                    convolution(name, (channels, channels, size), channels)
    convolution("conv_post", (1, channels, 7), 1)
    shapes["dict.weight"] = (made["vocabulary_size"], width)
    if values.get("multispkr"):
        shapes["spkr.weight"] = (int(values.get("num_speakers", 200)), width)
    if values.get("multistyle"):
        shapes["style.weight"] = (int(values.get("num_styles", 100)), width)
    shapes.update(_predictor(values.get("dur_predictor_params") or {}))
    return shapes


def _predictor(values: Mapping[str, Any]) -> Dict[str, Tuple[int, ...]]:
    """The tensors of a duration predictor."""
    if not values:
        return {}
    into, hidden, kernel = (
        int(values[name]) for name in ("encoder_embed_dim", "var_pred_hidden_dim", "var_pred_kernel_size")
    )
    shapes: Dict[str, Tuple[int, ...]] = {}
    for number, width in ((1, into), (2, hidden)):
        name = f"dur_predictor.conv{number}.0"
        shapes.update({f"{name}.weight": (hidden, width, kernel), f"{name}.bias": (hidden,)})
        shapes.update({f"dur_predictor.ln{number}.{part}": (hidden,) for part in ("weight", "bias")})
    return {**shapes, "dur_predictor.proj.weight": (1, hidden), "dur_predictor.proj.bias": (1,)}
