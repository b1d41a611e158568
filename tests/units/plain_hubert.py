"""HuBERT as fairseq computes it, written plainly in float64: what the encoder must agree with.

One waveform at a time, nothing folded, nothing fused. Follows fairseq/models/hubert/hubert.py (`extract_features` with
`output_layer`) and textlesslib's reader (which normalises the waveform where the task says so).
"""

from __future__ import annotations

import torch.nn.functional as F

from tests.units.made_hubert import GROUPS, KERNEL


def features(weights, waveform, layer, *, convolutions, heads, normalize=False, norm_first=False):
    """Features (frames, width) in float64 of a waveform (samples,)."""
    w = {name: value.double() for name, value in weights.items()}
    x = waveform.double()
    if normalize:
        x = F.layer_norm(x, x.shape)
    x = x[None, None]
    for index, (_, _, stride) in enumerate(convolutions):
        name = f"feature_extractor.conv_layers.{index}"
        x = F.conv1d(x, w[f"{name}.0.weight"], stride=stride)
        if f"{name}.2.weight" in w:
            x = F.group_norm(x, x.shape[1], w[f"{name}.2.weight"], w[f"{name}.2.bias"])
        elif f"{name}.2.1.weight" in w:
            x = norm(x.transpose(1, 2), w, f"{name}.2.1").transpose(1, 2)
        x = F.gelu(x)
    x = norm(x.transpose(1, 2), w, "layer_norm")
    if "post_extract_proj.weight" in w:
        x = linear(x, w, "post_extract_proj")
    x = x + F.gelu(position(x.transpose(1, 2), w)).transpose(1, 2)
    if not norm_first:
        x = norm(x, w, "encoder.layer_norm")
    for index in range(layer):
        x = transformer_layer(x, w, f"encoder.layers.{index}", heads, norm_first)
    return x[0]


def position(x, w):
    name = "encoder.pos_conv"
    if f"{name}.1.weight" in w:
        statistics = (w[f"{name}.0.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        x = F.batch_norm(x, *statistics)
        kernel, bias = w[f"{name}.1.weight"], w[f"{name}.1.bias"]
    else:
        direction = w[f"{name}.0.weight_v"]
        kernel = w[f"{name}.0.weight_g"] * direction / direction.norm(dim=(0, 1), keepdim=True)
        bias = w[f"{name}.0.bias"]
    return F.conv1d(x, kernel, bias, padding=KERNEL // 2, groups=GROUPS)[:, :, :-1]


def transformer_layer(x, w, name, heads, norm_first):
    residual = x
    y = norm(x, w, f"{name}.self_attn_layer_norm") if norm_first else x
    x = residual + attention(y, w, f"{name}.self_attn", heads)
    if not norm_first:
        x = norm(x, w, f"{name}.self_attn_layer_norm")
    residual = x
    y = norm(x, w, f"{name}.final_layer_norm") if norm_first else x
    x = residual + linear(F.gelu(linear(y, w, f"{name}.fc1")), w, f"{name}.fc2")
    return x if norm_first else norm(x, w, f"{name}.final_layer_norm")


def attention(x, w, name, heads):
    _, frames, width = x.shape
    query, key, value = (
        linear(x, w, f"{name}.{part}_proj").view(frames, heads, width // heads).transpose(0, 1) for part in "qkv"
    )
    weights = (query @ key.transpose(1, 2) / (width // heads) ** 0.5).softmax(-1)
    return linear((weights @ value).transpose(0, 1).reshape(1, frames, width), w, f"{name}.out_proj")


def linear(x, w, name):
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def norm(x, w, name):
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])
