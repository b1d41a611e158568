"""Checkpoint files: every weight accounted for, nothing of theirs run, and what is told about those that cannot be."""

from __future__ import annotations

import os
import pickle
import random

import pytest
import torch

from pipelines.units import checkpoint, codehifigan_file, convert, fairseq_file
from pipelines.units.checkpoint import CheckpointError
from tests.units import made


def read(path):
    return fairseq_file.convert_state(path, checkpoint.read_torch(path))


@pytest.fixture
def hubert(tmp_path):
    def make(**options):
        made.fairseq_hubert(tmp_path / "hubert.pt", layers=2, **options)
        return tmp_path / "hubert.pt"

    return make


# -- fairseq's HuBERT


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_every_weight_is_mapped_or_dropped_for_a_reason(hubert, batch_norm, legacy):
    path = hubert(batch_norm=batch_norm, legacy=legacy, optimizer=True)
    found = read(path)
    state = torch.load(path, weights_only=False, pickle_module=_Stubs)["model"]
    folded = 0 if batch_norm else 1  # weight_g and weight_v become one
    assert len(found.tensors) + folded + len(found.dropped) == len(state)
    assert set(found.dropped) - {"encoder.pos_conv.0.num_batches_tracked"} == {
        "mask_emb",
        "label_embs_concat",
        "final_proj.weight",
        "final_proj.bias",
    }
    assert found.config["conv_pos_batch_norm"] == batch_norm
    assert torch.equal(found.tensors["layers.1.query.weight"], state["encoder.layers.1.self_attn.q_proj.weight"])
    assert set(found.tensors) == set(convert.hubert_shapes(found.config))


class _Stubs:
    """What torch.load needs of the module pickle, with a class for any name."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            if module.startswith("fairseq"):
                return type(name, (), {})
            return super().find_class(module, name)

    load, loads = pickle.load, pickle.loads


@pytest.mark.parametrize(("options", "expected"), [
    ({}, {"normalize": False, "extractor_mode": "group_norm", "hop": 320, "layer_norm_first": False}),
    ({"normalize": True, "layer_norm_first": True}, {"normalize": True, "extractor_mode": "layer_norm", "layers": 2}),
    ({"hop": 640}, {"hop": 640, "width": 64, "ffn": 128, "heads": 4, "sample_rate": 16000}),
])  # fmt: skip
def test_the_settings_come_along(hubert, options, expected):
    config = read(hubert(**options)).config
    assert {name: config[name] for name in expected} == expected


def test_settings_of_older_checkpoints(hubert):
    from argparse import Namespace

    def older(state):
        cfg = state["cfg"]
        state["args"] = Namespace(
            arch="hubert", **cfg["task"], **{k: v for k, v in cfg["model"].items() if k not in cfg["task"]}
        )
        del state["cfg"]

    new, old = read(hubert()), read(hubert(changes=older))
    assert new.config == old.config


def test_half_precision_becomes_single(hubert, tmp_path):
    from pipelines.units.folders import write_tensors

    def halve(state):
        state["model"] = {
            key: value.half() if value.is_floating_point() else value for key, value in state["model"].items()
        }

    found = read(hubert(changes=halve))
    write_tensors(tmp_path / "x", found.tensors)
    from safetensors.torch import load_file

    assert {value.dtype for value in load_file(tmp_path / "x").values()} == {torch.float32}


@pytest.mark.parametrize(("change", "told"), [
    (lambda s: s["model"].update({"encoder.layers.0.adapter.weight": torch.zeros(3)}), r"encoder\.layers\.0\.adapter"),
    (lambda s: s["model"].update({"quantizer.vars": torch.zeros(3)}), r"quantizer\.vars"),
    (lambda s: s["model"].pop("encoder.layers.1.fc1.bias"), r"lacks 1 .*layers\.1\.expand\.bias"),
    (lambda s: s["model"].pop("encoder.pos_conv.0.weight_g"), r"position\.weight"),
    (lambda s: s["model"].pop("layer_norm.weight"), r"features_norm\.weight"),
    (lambda s: s["model"].update({"encoder.layers.0.fc1.weight": torch.zeros(3, 3)}), r"\(3, 3\), not \(128, 64\)"),
    (lambda s: s["model"].update({"encoder.pos_conv.0.weight_g": torch.ones(64, 1, 1)}), r"weight norm is over other"),
    (lambda s: s["model"]["encoder.layer_norm.bias"].fill_(float("nan")), "infinite or undefined"),
    (lambda s: s["cfg"]["model"].update(encoder_layers=1), r"does not know: layers\.1"),
    (lambda s: s["cfg"]["model"].update(encoder_layers=3), r"lacks 16 .*layers\.2"),
    (lambda s: s["cfg"]["model"].update(conv_bias=True), r"extractor\.0\.bias"),
    (lambda s: s["cfg"]["model"].update(encoder_attention_heads=5), "multiple of both"),
    (lambda s: s["cfg"]["model"].update(activation_fn="relu"), "activation_fn = 'relu'"),
    (lambda s: s["cfg"]["model"].update(layer_type="conformer"), "layer_type = 'conformer'"),
    (lambda s: s["cfg"]["model"].update(_name="wav2vec2"), "'wav2vec2'"),
    (lambda s: s["cfg"]["model"].update(_name="hubert_ctc"), "fine-tuned"),
    (lambda s: s["cfg"]["model"].update(extractor_mode="other"), "'other'"),
    (lambda s: s["cfg"]["task"].update(sample_rate=8000), "8,000 Hz"),
    (lambda s: s.update(cfg=None), "neither 'cfg' nor 'args'"),
    (lambda s: s.pop("model"), "no model of fairseq"),
    (lambda s: s.update(model=[1, 2]), "no model of fairseq"),
])  # fmt: skip
def test_what_does_not_add_up_is_named(hubert, change, told):
    with pytest.raises(CheckpointError, match=told) as caught:
        read(hubert(changes=change))
    assert "\n" not in str(caught.value)


# -- nothing of theirs is run


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_objects_are_refused_by_name(hubert, tmp_path):
    path = hubert(changes=lambda state: state.update(extra_state=Malicious(tmp_path / "ran")))
    with pytest.raises(CheckpointError, match=r"posix\.mkdir"):
        read(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("text", [
    "__import__('os').mkdir('{}')",
    "[(512,10,5)] + [x for x in open('{}','w').close() or []]",
    "[(512,10,5)] * 10 ** 9",
    "[[(512,10,5)] * 99999999]",
    "[(512,10,5)] * -1",
    "[]",
    "[(512,10)]",
    "[(512,10,0)]",
    "[(True,10,5)]",
    "'x'",
    "(" * 500,
    "[(512,10,5)" + " " * 2000 + "]",
    "lambda: 1",
    "",
])  # fmt: skip
def test_the_convolutions_are_not_evaluated(hubert, tmp_path, text):
    ran = tmp_path / "ran"
    path = hubert(changes=lambda state: state["cfg"]["model"].update(conv_feature_layers=text.format(ran) or "[]"))
    with pytest.raises(CheckpointError, match="convolutions"):
        read(path)
    assert not ran.exists()


def test_the_convolutions_of_fairseq():
    assert fairseq_file.parse_layers("x", "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2") == (
        [[512, 10, 5]] + [[512, 3, 2]] * 4 + [[512, 2, 2]] * 2
    )
    assert fairseq_file.parse_layers("x", "2 * [(8, 4, 2)]") == [[8, 4, 2]] * 2


# -- damage


@pytest.mark.parametrize("legacy", [False, True])
def test_cut_off_anywhere(hubert, tmp_path, legacy):
    whole = hubert(legacy=legacy).read_bytes()
    for size in [0, 1, 3, 10, 100, 1_000, len(whole) // 2, len(whole) - 200, len(whole) - 1]:
        (tmp_path / "cut.pt").write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"cut off|damaged|empty"):
            read(tmp_path / "cut.pt")


def test_spoilt_bytes_give_an_answer_or_a_paragraph(hubert, tmp_path):
    whole = hubert().read_bytes()
    chance = random.Random(0)
    for _ in range(150):
        spoilt = bytearray(whole)
        for _ in range(4):
            spoilt[chance.randrange(len(spoilt) if chance.random() < 0.3 else 4_000)] = chance.randrange(256)
        (tmp_path / "spoilt.pt").write_bytes(spoilt)
        try:
            read(tmp_path / "spoilt.pt")
        except CheckpointError as error:
            assert len(str(error)) < 3_000


@pytest.mark.parametrize(("content", "told"), [
    (b"", "empty"),
    (b"<!DOCTYPE html><html>404</html>", "web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\n", "git lfs pull"),
    (b"hello", "not a file that torch.save wrote"),
    (b"PK\x03\x04" + b"\0" * 300, "damaged or cut off"),
    (pickle.dumps({"a": 1}), "not a file that torch.save wrote"),
])  # fmt: skip
def test_other_files(tmp_path, content, told):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=told):
        read(tmp_path / "x.pt")


def test_no_file(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        read(tmp_path / "absent.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read(tmp_path)


# -- vocoders


def vocoder(folder, **options):
    made.codehifigan(folder, **options)
    names = [folder / f"{name}.txt" if (folder / f"{name}.txt").exists() else None for name in ("speakers", "styles")]
    return codehifigan_file.convert_files(folder / "generator.pt", folder / "config.json", *names)


@pytest.mark.parametrize("options", [
    {},
    {"speakers": (), "styles": ()},
    {"styles": (), "rates": (5, 4, 4, 4, 2)},
    {"predictor": True},
])  # fmt: skip
def test_a_vocoder(tmp_path, options):
    found = vocoder(tmp_path, **options)
    weights = torch.load(tmp_path / "generator.pt", weights_only=True)["generator"]
    assert not found.dropped
    assert len(found.tensors) == len([key for key in weights if not key.endswith("weight_g")])
    for key in ("conv_pre", "ups.0", "resblocks.2.convs2.1"):
        expected = torch._weight_norm(weights[f"{key}.weight_v"], weights[f"{key}.weight_g"], 0)
        assert torch.allclose(found.tensors[f"{key}.weight"], expected, rtol=1e-6, atol=0)
    config = found.config
    assert config["vocabulary_size"] == 100
    assert config["hop"] == (640 if "rates" in options else 320)
    assert config["speakers"] == (
        list(options["speakers"]) or None if "speakers" in options else ["ex01", "ex02", "lj"]
    )
    assert config["duration_predictor"] == bool(options.get("predictor"))


def test_a_vocoder_saved_by_newer_torch(tmp_path):
    def renamed(weights, _):
        for key in [key for key in weights if key.endswith(("_g", "_v"))]:
            number = "gv".index(key[-1])
            weights[f"{key[: -len('weight_g')]}parametrizations.weight.original{number}"] = weights.pop(key)

    old, new = vocoder(tmp_path / "old"), vocoder(tmp_path / "new", changes=renamed)
    assert all(torch.equal(value, new.tensors[name]) for name, value in old.tensors.items())


@pytest.mark.parametrize(("change", "told"), [
    (lambda _, c: c.update(f0=True), r"pitch \(f0\)"),
    (lambda _, c: c.update(embedder_params={"x": 1}), "embedder_params"),
    (lambda _, c: c.update(resblock="2"), "residual blocks of type '2'"),
    (lambda _, c: c.update(code_hop_size=640), "640 samples a unit"),
    (lambda _, c: c.update(num_speakers=2), "another vocoder"),
    (lambda _, c: c.update(num_embeddings=50), r"dict\.weight is \(100, 16\), not \(50, 16\)"),
    (lambda _, c: c.pop("num_embeddings"), "lacks num_embeddings"),
    (lambda w, _: w.pop("ups.1.bias"), r"lacks 1 .*ups\.1\.bias"),
    (lambda w, _: w.pop("ups.1.weight_g"), r"ups\.1\.weight"),
    (lambda w, _: w.update({"f0_quant_embed.weight": torch.zeros(3)}), "f0_quant_embed"),
    (lambda w, _: w.update({"dur_predictor.proj.bias": torch.zeros(1)}), "dur_predictor"),
])  # fmt: skip
def test_a_vocoder_that_does_not_add_up(tmp_path, change, told):
    with pytest.raises(CheckpointError, match=told):
        vocoder(tmp_path, changes=change)


def test_files_of_a_vocoder_mixed_up(tmp_path, hubert):
    made.codehifigan(tmp_path)
    with pytest.raises(CheckpointError, match="no generator of HiFi-GAN"):
        codehifigan_file.convert_files(hubert(), tmp_path / "config.json")
    with pytest.raises(CheckpointError, match=r"config\.json beside generator\.pt"):
        codehifigan_file.convert_files(tmp_path / "generator.pt", tmp_path / "speakers.txt")
    with pytest.raises(CheckpointError, match="no model of fairseq"):
        read(tmp_path / "generator.pt")
