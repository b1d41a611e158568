"""HuBERT checkpoints of fairseq (`hubert_base_ls960.pt`, …), read without fairseq and without running their code.

Layout of the file: fairseq/trainer.py, `state_dict`; of the weights: fairseq/models/hubert/hubert.py and
fairseq/models/wav2vec/wav2vec2.py of github.com/facebookresearch/fairseq.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from pipelines.units import convert
from pipelines.units.checkpoint import CheckpointError, is_tensor_map
from pipelines.units.convert import Converted

_DEFAULTS: Dict[str, Any] = {
    "extractor_mode": "default",
    "encoder_layers": 12,
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "activation_fn": "gelu",
    "layer_type": "transformer",
    "layer_norm_first": False,
    "conv_feature_layers": "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2",
    "conv_bias": False,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "pos_conv_depth": 1,
}
"""fairseq's own, for fields that older checkpoints do not spell out."""

_DROPPED = {
    "mask_emb": "stands for masked frames in training",
    "label_embs_concat": "the training targets' embeddings",
    "final_proj.": "projects onto the training targets",
    "target_glu.": "projects the training targets",
    "encoder.pos_conv.0.num_batches_tracked": "counts training steps",
}

_LAYER = {
    "self_attn.q_proj": "query",
    "self_attn.k_proj": "key",
    "self_attn.v_proj": "value",
    "self_attn.out_proj": "out",
    "self_attn_layer_norm": "attention_norm",
    "fc1": "expand",
    "fc2": "contract",
    "final_layer_norm": "final_norm",
}
_NAMES = {
    "layer_norm": "features_norm",
    "post_extract_proj": "projection",
    "encoder.layer_norm": "encoder_norm",
}
_WEIGHT_NORM = {f"encoder.pos_conv.0.{part}": f"position.{part}" for part in ("weight_g", "weight_v", "bias")}
_BATCH_NORM = {
    "encoder.pos_conv.0.weight": "position.norm.weight",
    "encoder.pos_conv.0.bias": "position.norm.bias",
    "encoder.pos_conv.0.running_mean": "position.norm.mean",
    "encoder.pos_conv.0.running_var": "position.norm.variance",
    "encoder.pos_conv.1.weight": "position.weight",
    "encoder.pos_conv.1.bias": "position.bias",
}
_MOST_LAYERS = 64


def convert_state(path: Path, state: Any) -> Converted:
    """The model in a checkpoint that `checkpoint.read_torch` read. Raises CheckpointError."""
    if not isinstance(state, dict) or not is_tensor_map(state.get("model")):
        raise CheckpointError(
            f"{path} holds no model of fairseq: it has {_described(state)}, and a checkpoint of HuBERT has 'model' "
            "and 'cfg'. Its kind is told with `./voxarray import-checkpoint KIND FILE --name NAME`."
        )
    weights: Mapping[str, Any] = state["model"]
    model, task = _settings(path, state)
    batch_norm = "encoder.pos_conv.0.running_mean" in weights
    config = _config(path, model, task)
    config["conv_pos_batch_norm"] = batch_norm
    config["projected"] = config["conv_layers"][-1][0] != config["width"]
    convert.verify_hubert(str(path), config)
    position = _BATCH_NORM if batch_norm else _WEIGHT_NORM
    tensors, dropped = convert.rename(str(path), weights, lambda key: _name(key, position), _DROPPED)
    convert.fold_weight_norm(tensors, "position", keep=2)
    convert.verify(str(path), tensors, convert.hubert_shapes(config))
    return Converted("hubert", config, tensors, dropped)


def _described(state: Any) -> str:
    if isinstance(state, dict):
        return f"the keys {', '.join(map(repr, list(state)[:6]))}"
    return f"a {type(state).__name__}"


def _settings(path: Path, state: Mapping[str, Any]) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """The model's and the task's settings: `cfg` of newer checkpoints, `args` of older ones. They must be HuBERT's."""
    cfg = state.get("cfg")
    if isinstance(cfg, Mapping) and isinstance(cfg.get("model"), Mapping):
        model, task = dict(cfg["model"]), dict(cfg.get("task") or {})
        name = model.get("_name")
    elif state.get("args") is not None:
        model = task = vars(state["args"])
        name = model.get("arch")
    else:
        raise CheckpointError(f"{path} has neither 'cfg' nor 'args': its settings are lost, and cannot be guessed.")
    if name != "hubert":
        told = " (fine-tuned for recognition: its encoder was changed)" if "ctc" in str(name) else ""
        raise CheckpointError(
            f"{path} holds a model of kind {name!r}{told}, and this imports pre-trained HuBERT. For HuBERT fine-tuned "
            "or in other formats, use a transformers folder: `./voxarray import-checkpoint transformers FOLDER`."
        )
    return model, task


def _config(path: Path, model: Mapping[str, Any], task: Mapping[str, Any]) -> Dict[str, Any]:
    values = {name: model.get(name, default) for name, default in _DEFAULTS.items()}
    for name in ("activation_fn", "layer_type", "pos_conv_depth"):
        if values[name] != _DEFAULTS[name]:
            raise CheckpointError(
                f"{path} was trained with {name} = {values[name]!r}, and only {_DEFAULTS[name]!r} is computed here."
            )
    rate = int(task.get("sample_rate", 16_000))
    if rate != 16_000:
        raise CheckpointError(f"{path} is for audio at {rate:,} Hz; voxarray reads audio at 16,000 Hz.")
    layers = parse_layers(str(path), str(values["conv_feature_layers"]))
    mode = {"default": "group_norm"}.get(values["extractor_mode"], values["extractor_mode"])
    return {
        "conv_layers": layers,
        "conv_bias": bool(values["conv_bias"]),
        "extractor_mode": mode,
        "features_norm": True,
        "width": int(values["encoder_embed_dim"]),
        "ffn": int(values["encoder_ffn_embed_dim"]),
        "heads": int(values["encoder_attention_heads"]),
        "layers": int(values["encoder_layers"]),
        "layer_norm_first": bool(values["layer_norm_first"]),
        "conv_pos": int(values["conv_pos"]),
        "conv_pos_groups": int(values["conv_pos_groups"]),
        "normalize": bool(task.get("normalize", False)),
        "sample_rate": rate,
        "hop": convert.hop_of(layers),
    }


def parse_layers(what: str, text: str) -> List[List[int]]:
    """The convolutions [[channels, kernel, stride], …] of fairseq's spelling, `[(512,10,5)] + [(512,3,2)] * 4`.

    It is a Python expression, which fairseq evaluates; here nothing but lists, tuples, numbers, + and * is understood.
    """
    try:
        if len(text) > 1000:
            raise ValueError("it is too long")
        layers = _evaluate(ast.parse(text, mode="eval").body)
        found = [[int(number) for number in layer] for layer in layers]
        if not found or any(len(layer) != 3 or min(layer) < 1 for layer in found):
            raise ValueError("it is no list of (channels, kernel, stride)")
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise CheckpointError(
            f"{what} describes its convolutions as {text[:120]!r}, which cannot be understood: {error}. A usual value "
            f"is {_DEFAULTS['conv_feature_layers']!r}."
        ) from None
    return found


def _evaluate(node: ast.AST) -> Any:
    if isinstance(node, ast.List):
        return [_evaluate(each) for each in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_evaluate(each) for each in node.elts)
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mult)):
        left, right = _evaluate(node.left), _evaluate(node.right)
        if isinstance(node.op, ast.Add) and isinstance(left, list) and isinstance(right, list):
            return _short(left + right)
        if isinstance(node.op, ast.Mult) and {type(left), type(right)} == {list, int}:
            items, times = (left, right) if isinstance(left, list) else (right, left)
            if times * len(items) <= _MOST_LAYERS:
                return items * times
    raise ValueError("it holds something else than lists of numbers, added and repeated")


def _short(layers: List[Any]) -> List[Any]:
    if len(layers) > _MOST_LAYERS:
        raise ValueError(f"it has more than {_MOST_LAYERS} layers")
    return layers


_CONVOLUTION = re.compile(r"feature_extractor\.conv_layers\.(\d+)\.(0|2|2\.1)\.(weight|bias)")
_ENCODER_LAYER = re.compile(r"encoder\.layers\.(\d+)\.([\w.]+)\.(weight|bias)")


def _name(key: str, position: Mapping[str, str]) -> Optional[str]:
    """Our name of a weight; None: there is none."""
    if key in position:
        return position[key]
    match = _CONVOLUTION.fullmatch(key)
    if match:
        part = "" if match[2] == "0" else "norm."
        return f"extractor.{match[1]}.{part}{match[3]}"
    match = _ENCODER_LAYER.fullmatch(key)
    if match:
        return f"layers.{match[1]}.{_LAYER[match[2]]}.{match[3]}" if match[2] in _LAYER else None
    start, _, end = key.rpartition(".")
    return f"{_NAMES[start]}.{end}" if start in _NAMES and end in ("weight", "bias") else None
