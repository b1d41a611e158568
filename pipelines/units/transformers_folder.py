"""HuBERT as Hugging Face transformers saves it: config.json, model.safetensors or pytorch_model.bin, or their shards.

Read natively; transformers itself is not needed. A name of the hub (`facebook/hubert-base-ls960`) is looked up in the
cache of huggingface_hub, and downloaded only where that package is installed.
"""

from __future__ import annotations

import importlib
import json
import os
import re
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from pipelines.units import convert
from pipelines.units.checkpoint import CheckpointError, read_torch
from pipelines.units.convert import Converted

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

_DEFAULTS: Dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "feat_extract_norm": "group",
    "feat_proj_layer_norm": True,
    "layer_norm_eps": 1e-5,
    "conv_dim": [512] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_bias": False,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "conv_pos_batch_norm": False,
    "do_stable_layer_norm": False,
}
"""HubertConfig's own: save_pretrained writes only what differs."""

_DROPPED = {
    "masked_spec_embed": "stands for masked frames in training",
    "lm_head.": "the recogniser that was trained on top",
    "classifier.": "the classifier that was trained on top",
    "projector.": "the classifier that was trained on top",
    "layer_weights": "the classifier that was trained on top",
    "encoder.pos_conv_embed.batch_norm.num_batches_tracked": "counts training steps",
}
_LAYER = {
    "attention.q_proj": "query",
    "attention.k_proj": "key",
    "attention.v_proj": "value",
    "attention.out_proj": "out",
    "layer_norm": "attention_norm",
    "feed_forward.intermediate_dense": "expand",
    "feed_forward.output_dense": "contract",
    "final_layer_norm": "final_norm",
}
_NAMES = {
    "feature_projection.layer_norm": "features_norm",
    "feature_projection.projection": "projection",
    "encoder.layer_norm": "encoder_norm",
}
_POSITION = {
    "conv.bias": "bias",
    "conv.weight": "weight",
    "conv.weight_g": "weight_g",
    "conv.weight_v": "weight_v",
    "conv.parametrizations.weight.original0": "weight_g",
    "conv.parametrizations.weight.original1": "weight_v",
    "batch_norm.weight": "norm.weight",
    "batch_norm.bias": "norm.bias",
    "batch_norm.running_mean": "norm.mean",
    "batch_norm.running_var": "norm.variance",
}


def convert_folder(folder: Path, normalize: Optional[bool] = None) -> Tuple[Converted, List[Path]]:
    """The model in a folder, and the files of its weights. Raises CheckpointError.

    `normalize`: whether waveforms are brought to mean 0 and variance 1 first; None: as preprocessor_config.json says,
    and without one, as the feature extractor's kind wants it.
    """
    values = _read_json(folder / CONFIG)
    if values.get("model_type") != "hubert":
        raise CheckpointError(
            f"{folder / CONFIG} describes a model of type {values.get('model_type')!r}, and this imports HuBERT "
            "('hubert') alone: others compute something else, however alike their weights are named."
        )
    config = _config(folder, values)
    if normalize is None:
        normalize = config["extractor_mode"] == "layer_norm"
        if (folder / PREPROCESSOR).is_file():
            normalize = bool(_read_json(folder / PREPROCESSOR).get("do_normalize", True))
    config["normalize"] = normalize
    convert.verify_hubert(str(folder), config)
    weights, files = _weights(folder)
    prefix = "hubert." if any(key.startswith("hubert.") for key in weights) else ""
    bare = {key.removeprefix(prefix): value for key, value in weights.items()}
    tensors, dropped = convert.rename(str(folder), bare, _name, _DROPPED)
    convert.fold_weight_norm(tensors, "position", keep=2)
    convert.verify(str(folder), tensors, convert.hubert_shapes(config))
    return Converted("hubert", config, tensors, dropped), files


def _read_json(path: Path) -> Dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}). A folder that transformers' save_pretrained wrote has it, beside the "
            "weights."
        ) from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds no JSON object: it is not transformers'.")
    return found


def _config(folder: Path, given: Mapping[str, Any]) -> Dict[str, Any]:
    values = {name: given.get(name, default) for name, default in _DEFAULTS.items()}
    for name in ("hidden_act", "feat_extract_activation", "layer_norm_eps"):
        if values[name] != _DEFAULTS[name]:
            raise CheckpointError(
                f"{folder / CONFIG} has {name} = {values[name]!r}, and only {_DEFAULTS[name]!r} is computed here."
            )
    lists = [values[name] for name in ("conv_dim", "conv_kernel", "conv_stride")]
    if len({len(each) for each in lists}) != 1 or not lists[0]:
        raise CheckpointError(f"{folder / CONFIG} has conv_dim, conv_kernel and conv_stride of different lengths.")
    layers = [[int(number) for number in layer] for layer in zip(*lists)]
    mode = {"group": "group_norm", "layer": "layer_norm"}.get(values["feat_extract_norm"])
    return {
        "conv_layers": layers,
        "conv_bias": bool(values["conv_bias"]),
        "extractor_mode": mode,
        "features_norm": bool(values["feat_proj_layer_norm"]),
        "projected": True,
        "width": int(values["hidden_size"]),
        "ffn": int(values["intermediate_size"]),
        "heads": int(values["num_attention_heads"]),
        "layers": int(values["num_hidden_layers"]),
        "layer_norm_first": bool(values["do_stable_layer_norm"]),
        "conv_pos": int(values["num_conv_pos_embeddings"]),
        "conv_pos_groups": int(values["num_conv_pos_embedding_groups"]),
        "conv_pos_batch_norm": bool(values["conv_pos_batch_norm"]),
        "sample_rate": 16_000,
        "hop": convert.hop_of(layers),
    }


def _weights(folder: Path) -> Tuple[Dict[str, Any], List[Path]]:
    """All tensors, mapped from the files, and the files."""
    path = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(
            f"{folder} has a {CONFIG} but no weights: one of {', '.join(_WEIGHTS)} is needed. If it was cloned with "
            "git, fetch them with `git lfs pull`."
        )
    if not path.name.endswith(".index.json"):
        return _tensors(path), [path]
    placed = _read_json(path).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise CheckpointError(f"{path} names no shards: it is damaged.")
    found: Dict[str, Any] = {}
    shards = sorted({str(name) for name in placed.values()})
    for name in shards:
        if "/" in name or not (folder / name).is_file():
            raise CheckpointError(f"{path} names the shard {name}, which is not in {folder}. Fetch it, too.")
        found.update(_tensors(folder / name))
    return found, [path, *(folder / name for name in shards)]


def _tensors(path: Path) -> Dict[str, Any]:
    if path.suffix != ".safetensors":
        found = read_torch(path)
        if not isinstance(found, dict):
            raise CheckpointError(f"{path} holds no weights by name.")
        return found
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged or cut off ({error}). Its download was probably interrupted: fetch it again."
        ) from None


_CONVOLUTION = re.compile(r"feature_extractor\.conv_layers\.(\d+)\.(conv|layer_norm)\.(weight|bias)")
_ENCODER_LAYER = re.compile(r"encoder\.layers\.(\d+)\.([\w.]+)\.(weight|bias)")


def _name(key: str) -> Optional[str]:
    """Our name of a weight; None: there is none."""
    match = _CONVOLUTION.fullmatch(key)
    if match:
        part = "" if match[2] == "conv" else "norm."
        return f"extractor.{match[1]}.{part}{match[3]}"
    match = _ENCODER_LAYER.fullmatch(key)
    if match:
        return f"layers.{match[1]}.{_LAYER[match[2]]}.{match[3]}" if match[2] in _LAYER else None
    position = "encoder.pos_conv_embed."
    if key.startswith(position):
        end = key[len(position) :]
        return f"position.{_POSITION[end]}" if end in _POSITION else None
    start, _, end = key.rpartition(".")
    return f"{_NAMES[start]}.{end}" if start in _NAMES and end in ("weight", "bias") else None


# -- names of the hub


def hub_folder(name: str, download: bool = True) -> Path:
    """The folder of a model of the hub, in its cache. CheckpointError: it is not there, nor to be had."""
    cache = _cache()
    stored = cache / f"models--{name.replace('/', '--')}"
    found = _snapshot(stored)
    if found is not None:
        return found
    reason = "it is not to be downloaded"
    if download:
        try:
            return _downloaded(name)
        except ImportError:
            reason = "it is not downloaded without the package huggingface_hub"
        except Exception as error:  # noqa: BLE001 - of many libraries beneath
            reason = f"its download failed: {(str(error).strip().splitlines() or ['?'])[0][:200]}"
    raise CheckpointError(
        f"{name} is not in the cache of the hub ({stored}), and {reason}. Where there is internet: `pip install "
        f"huggingface_hub`, then `hf download {name}`; or bring its config.json, preprocessor_config.json and "
        "model.safetensors in a folder, and give that."
    )


def _downloaded(name: str) -> Path:
    """The folder of a model that huggingface_hub downloads: without the pickle, where there is safetensors."""
    hub = importlib.import_module("huggingface_hub")
    patterns = [CONFIG, PREPROCESSOR, "*.safetensors", "*.safetensors.index.json"]
    folder = Path(hub.snapshot_download(name, allow_patterns=patterns))
    if any((folder / each).is_file() for each in _WEIGHTS):
        return folder
    return Path(hub.snapshot_download(name, allow_patterns=[CONFIG, PREPROCESSOR, "pytorch_model*"]))


def _cache() -> Path:
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    home = os.environ.get("HF_HOME")
    return (Path(home).expanduser() if home else Path("~/.cache/huggingface").expanduser()) / "hub"


def _snapshot(stored: Path) -> Optional[Path]:
    """The snapshot that `refs/main` names, else the one written last."""
    main = stored / "refs" / "main"
    if main.is_file():
        named = stored / "snapshots" / main.read_text(encoding="utf-8").strip()
        if (named / CONFIG).is_file():
            return named
    found = [path.parent for path in stored.glob(f"snapshots/*/{CONFIG}")]
    return max(found, key=lambda path: path.stat().st_mtime) if found else None
