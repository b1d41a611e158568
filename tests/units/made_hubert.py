"""HuBERT with random weights, as fairseq's Trainer.save_checkpoint writes it, without fairseq."""

from __future__ import annotations

import sys
import types
from contextlib import contextmanager
from pathlib import Path

import torch

CONVOLUTIONS = {
    320: "[({0},10,5)] + [({0},3,2)] * 4 + [({0},2,2)] * 2",
    640: "[({0},10,5)] + [({0},3,2)] * 4 + [({0},2,2)] * 3",
}
"""fairseq's spelling of the layers (channels, kernel, stride), by the samples of a frame."""
TINY = {"width": 64, "ffn": 128, "heads": 4, "channels": 32, "final": 16}
BASE = {"width": 768, "ffn": 3072, "heads": 12, "channels": 512, "final": 256}


def fairseq_hubert(
    path,
    seed=0,
    *,
    batch_norm=False,
    normalize=False,
    layers=3,
    hop=320,
    extractor=None,
    layer_norm_first=False,
    sizes=None,
    optimizer=False,
    legacy=False,
    changes=None,
):
    """Write a fairseq HuBERT checkpoint to `path` and return its state dict.

    `extractor` ("default" or "layer_norm") follows `normalize` where it is None, as it does in the published models;
    `sizes`: TINY or BASE; `optimizer`: with the optimizer's state, three times the size; `legacy`: in torch's format
    before 1.6; `changes(state)` may spoil the checkpoint before it is written.
    """
    sizes = sizes or TINY
    extractor = extractor or ("layer_norm" if normalize else "default")
    generator = torch.Generator().manual_seed(seed)
    weights = hubert_weights(generator, sizes, layers=layers, hop=hop, batch_norm=batch_norm, extractor=extractor)
    state = {
        "args": None,
        "cfg": _cfg(
            sizes,
            layers,
            hop=hop,
            batch_norm=batch_norm,
            normalize=normalize,
            extractor=extractor,
            layer_norm_first=layer_norm_first,
        ),
        "model": weights,
        "criterion": None,
        "optimizer_history": [
            {
                "criterion_name": "HubertCriterion",
                "optimizer_name": "FairseqAdam",
                "lr_scheduler_state": {"best": None},
                "num_updates": 400000,
            }
        ],
        "task_state": {},
        "extra_state": {
            "train_iterator": {"epoch": 1, "iterations_in_epoch": 0, "shuffle": True, "version": 2},
            "val_loss": None,
            "metrics": {},
            "previous_training_time": 0.0,
        },
        "last_optimizer_state": _adam(weights) if optimizer else None,
    }
    with _dictionary_class() as dictionary:
        state["task_state"]["dictionaries"] = [_filled(dictionary, CLASSES)]
        if changes:
            changes(state)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    return state.get("model")


CLASSES = 50


def hubert_weights(generator, sizes, *, layers, hop, batch_norm, extractor):
    """A state dict with fairseq's names, in fairseq's order."""
    width, ffn, channels, final = (sizes[key] for key in ("width", "ffn", "channels", "final"))

    def normal(*shape, scale):
        return torch.randn(*shape, generator=generator) * scale

    def uniform(*shape, low, high):
        return torch.rand(*shape, generator=generator) * (high - low) + low

    def norm(name, size):
        return {
            f"{name}.weight": uniform(size, low=0.6, high=1.4),
            f"{name}.bias": normal(size, scale=0.05),
        }

    def linear(name, out, into, gain):
        return {
            f"{name}.weight": normal(out, into, scale=gain / into**0.5),
            f"{name}.bias": normal(out, scale=0.05),
        }

    weights = {"mask_emb": uniform(width, low=0.0, high=1.0), "label_embs_concat": normal(CLASSES + 4, final, scale=1)}
    into = 1
    for index, (out, kernel, _) in enumerate(convolutions(hop, channels)):
        name = f"feature_extractor.conv_layers.{index}"
        weights[f"{name}.0.weight"] = normal(out, into, kernel, scale=(2 / (into * kernel)) ** 0.5)
        if extractor == "layer_norm":
            weights.update(norm(f"{name}.2.1", out))
        elif index == 0:
            weights.update(norm(f"{name}.2", out))
        into = out
    if channels != width:
        weights.update(linear("post_extract_proj", width, channels, 1.5))
    shape = (width, width // GROUPS, KERNEL)
    kernel = normal(*shape, scale=(4 / (KERNEL * width)) ** 0.5)
    if batch_norm:
        weights.update(norm("encoder.pos_conv.0", width))
        weights["encoder.pos_conv.0.running_mean"] = normal(width, scale=0.3)
        weights["encoder.pos_conv.0.running_var"] = uniform(width, low=0.5, high=2.0)
        weights["encoder.pos_conv.0.num_batches_tracked"] = torch.tensor(400000)
        weights["encoder.pos_conv.1.weight"] = kernel
        weights["encoder.pos_conv.1.bias"] = normal(width, scale=0.05)
    else:
        weights["encoder.pos_conv.0.bias"] = normal(width, scale=0.05)
        weights["encoder.pos_conv.0.weight_g"] = kernel.norm(dim=(0, 1), keepdim=True) * uniform(
            1, 1, KERNEL, low=0.8, high=1.2
        )
        weights["encoder.pos_conv.0.weight_v"] = kernel
    for index in range(layers):
        name = f"encoder.layers.{index}"
        # Small updates by attention and feed-forward: else the post-norm layers average all frames into one.
        for projection, gain in (("k_proj", 1.6), ("v_proj", 1.6), ("q_proj", 1.6), ("out_proj", 0.25)):
            weights.update(linear(f"{name}.self_attn.{projection}", width, width, gain))
        weights.update(norm(f"{name}.self_attn_layer_norm", width))
        weights.update(linear(f"{name}.fc1", ffn, width, 1.6))
        weights.update(linear(f"{name}.fc2", width, ffn, 0.5))
        weights.update(norm(f"{name}.final_layer_norm", width))
    weights.update(norm("encoder.layer_norm", width))
    weights.update(norm("layer_norm", channels))
    weights.update(linear("final_proj", final, width, 1.0))
    return weights


KERNEL, GROUPS = 128, 16
"""The positional convolution's."""


def convolutions(hop, channels):
    """(channels, kernel, stride) of each layer of the feature extractor."""
    tail = 2 if hop == 320 else 3
    return [(channels, 10, 5)] + [(channels, 3, 2)] * 4 + [(channels, 2, 2)] * tail


def _cfg(sizes, layers, *, hop, batch_norm, normalize, extractor, layer_norm_first):
    rate = 16000 / hop
    model = {
        "_name": "hubert",
        "label_rate": rate,
        "extractor_mode": extractor,
        "encoder_layers": layers,
        "encoder_embed_dim": sizes["width"],
        "encoder_ffn_embed_dim": sizes["ffn"],
        "encoder_attention_heads": sizes["heads"],
        "activation_fn": "gelu",
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "activation_dropout": 0.0,
        "encoder_layerdrop": 0.05,
        "dropout_input": 0.1,
        "dropout_features": 0.1,
        "final_dim": sizes["final"],
        "untie_final_proj": True,
        "layer_norm_first": layer_norm_first,
        "conv_feature_layers": CONVOLUTIONS[hop].format(sizes["channels"]),
        "conv_bias": False,
        "logit_temp": 0.1,
        "target_glu": False,
        "feature_grad_mult": 0.1,
        "mask_length": 10,
        "mask_prob": 0.8,
        "mask_selection": "static",
        "mask_other": 0.0,
        "no_mask_overlap": False,
        "mask_min_space": 1,
        "mask_channel_length": 10,
        "mask_channel_prob": 0.0,
        "mask_channel_selection": "static",
        "mask_channel_other": 0.0,
        "no_mask_channel_overlap": False,
        "mask_channel_min_space": 1,
        "conv_pos": KERNEL,
        "conv_pos_groups": GROUPS,
        "latent_temp": [2, 0.5, 0.999995],
        "skip_masked": False,
        "skip_nomask": False,
    }
    if batch_norm:  # a field that fairseq got with BatchNorm; older ones refuse it
        model["conv_pos_batch_norm"] = True
    task = {
        "_name": "hubert_pretraining",
        "data": "/nowhere/data",
        "fine_tuning": False,
        "labels": ["km"],
        "label_dir": "/nowhere/labels",
        "label_rate": rate,
        "sample_rate": 16000,
        "normalize": normalize,
        "enable_padding": False,
        "max_sample_size": 250000,
        "min_sample_size": 32000,
        "single_target": False,
        "random_crop": True,
        "pad_audio": False,
    }
    return {
        "_name": None,
        "common": {"_name": None, "fp16": True, "seed": 1337, "log_format": "json", "log_interval": 200},
        "criterion": {"_name": "hubert", "pred_masked_weight": 1.0, "pred_nomask_weight": 0.0, "loss_weights": [10.0]},
        "model": model,
        "task": task,
    }


def _adam(weights):
    """FairseqAdam's state: two moments a parameter."""
    moments = {
        index: {"step": 400000, "exp_avg": torch.zeros_like(value), "exp_avg_sq": torch.zeros_like(value)}
        for index, value in enumerate(weights.values())
    }
    return {"state": moments, "param_groups": [{"lr": 0.0005, "betas": [0.9, 0.98], "params": list(moments)}]}


@contextmanager
def _dictionary_class():
    """A class that pickle writes as fairseq.data.dictionary.Dictionary."""
    names = ("fairseq", "fairseq.data", "fairseq.data.dictionary")
    before = {name: sys.modules.get(name) for name in names}
    for name in names:
        sys.modules[name] = types.ModuleType(name)
    made = type("Dictionary", (), {"__module__": names[-1]})
    sys.modules[names[-1]].Dictionary = made
    try:
        yield made
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _filled(dictionary, classes):
    """A Dictionary of k-means classes, with the four symbols that fairseq puts first."""
    symbols = ["<s>", "<pad>", "</s>", "<unk>", *map(str, range(classes))]
    made = dictionary()
    made.__dict__.update(
        bos_word="<s>",
        unk_word="<unk>",
        pad_word="<pad>",
        eos_word="</s>",
        symbols=symbols,
        count=[1] * len(symbols),
        indices={symbol: index for index, symbol in enumerate(symbols)},
        bos_index=0,
        pad_index=1,
        eos_index=2,
        unk_index=3,
        nspecial=4,
    )
    return made
