"""`import-checkpoint` of files and folders of one's own: each kind, and what is said about mistakes."""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from pipelines.core.errors import UsageError
from pipelines.units import download, importing, known, models
from pipelines.units.hubert import Hubert
from tests.units import made

CENTROIDS = np.random.default_rng(0).standard_normal((20, 64)).astype(np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(models.VARIABLE, str(tmp_path / "models"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", download.TEXTLESS_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def run(*arguments):
    assert importing.main([str(each) for each in arguments]) == 0


# -- files of one's own


@pytest.mark.parametrize("kind", [(), ("hubert",)])
def test_a_hubert_of_fairseq(folder, capsys, kind):
    made.fairseq_hubert(folder / "mine.pt", batch_norm=True)
    run(*kind, folder / "mine.pt", "--name", "mine", "--licence", "ours")
    told = capsys.readouterr().out
    assert "BatchNorm" in told
    assert "mask_emb (stands for masked frames in training)" in told
    info = models.describe("mine", "hubert")
    digest = hashlib.sha256((folder / "mine.pt").read_bytes()).hexdigest()
    assert (info.source.sha256, info.source.format, info.licence) == (digest, "fairseq", "ours")
    assert digest in told
    run(folder / "mine.pt", "--name", "mine")
    assert "nothing was changed" in capsys.readouterr().out
    made.fairseq_hubert(folder / "other.pt", seed=1)
    with pytest.raises(UsageError, match="--replace"):
        run(folder / "other.pt", "--name", "mine")
    run(folder / "other.pt", "--name", "mine", "--replace")
    assert models.describe("mine").digest != info.digest
    assert [path.name for path in (folder / "models").iterdir()] == ["mine"]


def test_a_path_is_as_good_as_a_name(folder):
    made.fairseq_hubert(folder / "mine.pt")
    run(folder / "mine.pt", "--name", folder / "elsewhere" / "mine")
    assert models.describe(str(folder / "elsewhere" / "mine")).name == "mine"


def test_a_codebook_knows_its_encoder(folder):
    made.fairseq_hubert(folder / "mine.pt")
    made.joblib_kmeans(folder / "km.bin", CENTROIDS)
    run(folder / "mine.pt", "--name", "mine")
    run(folder / "km.bin", "--name", "mine-km", "--dense-model", "mine", "--layer", 2)
    found = models.resolve_units("mine-km")
    assert (found.dense.name, found.layer) == ("mine", 2)
    assert found.codebook.config["features"]["digest"] == found.dense.digest
    from safetensors.numpy import load_file

    assert np.array_equal(load_file(found.codebook.weights)["centroids"], CENTROIDS)
    run("kmeans", folder / "km.bin", "--name", "bare")
    with pytest.raises(UsageError, match="does not say which encoder"):
        models.resolve_units("bare")
    for given, told in [
        (("--dense-model", "mine", "--layer", 4), "layers 1 to 3"),
        (("--dense-model", "mine"), "Which layer"),
        (("--layer", 3), "--dense-model"),
    ]:
        with pytest.raises(UsageError, match=told):
            run(folder / "km.bin", "--name", "bad", *given)
    made.joblib_kmeans(folder / "narrow.bin", CENTROIDS[:, :32])
    with pytest.raises(UsageError, match="not its encoder"):
        run(folder / "narrow.bin", "--name", "bad", "--dense-model", "mine", "--layer", 2)


def test_a_codebook_of_a_published_encoder_that_is_not_here(folder):
    made.joblib_kmeans(folder / "km.bin", np.zeros((4, 768), np.float32) + np.arange(4)[:, None])
    run(folder / "km.bin", "--name", "mine", "--dense-model", "hubert-base-ls960-layer-9")
    features = models.describe("mine").config["features"]
    assert features == {"kind": "hubert", "model": "hubert-base-ls960", "layer": 9}
    with pytest.raises(UsageError, match="import-checkpoint hubert-base-ls960`"):
        models.resolve_units("mine")


@pytest.mark.parametrize("form", ["files", "folder", "kind and files"])
def test_a_vocoder(folder, form):
    made.codehifigan(folder / "voice")
    files = [folder / "voice" / name for name in ("generator.pt", "config.json")]
    named = [f"--{what}={folder / 'voice' / what}.txt" for what in ("speakers", "styles")]
    operands = {"files": [*files, *named], "folder": [folder / "voice"], "kind and files": ["hifigan", *files, *named]}
    run(*operands[form], "--name", "voice")
    config = models.describe("voice", "hifigan").config
    assert config["speakers"] == ["ex01", "ex02", "lj"]
    assert config["styles"] == ["read-default", "read-happy"]


def test_the_wrong_kind(folder):
    made.fairseq_hubert(folder / "hubert.pt")
    made.joblib_kmeans(folder / "km.bin", CENTROIDS)
    made.codehifigan(folder / "voice")
    for arguments, told in [
        (("kmeans", folder / "hubert.pt"), "no k-means"),
        (("hubert", folder / "km.bin"), "import-checkpoint kmeans"),
        (("hubert", folder / "voice" / "generator.pt"), "no model of fairseq"),
        (("hifigan", folder / "hubert.pt", folder / "voice" / "config.json"), "no generator"),
        (("hifigan", folder / "voice" / "generator.pt"), "generator and its configuration"),
        (("transformers", folder / "hubert.pt"), "no folder"),
        (("transformers", folder / "voice"), "'hubert'"),
        (("hubert", folder / "hubert.pt", folder / "km.bin"), "One hubert"),
    ]:
        with pytest.raises(UsageError, match=told):
            run(*arguments, "--name", "x")
    assert not (folder / "models" / "x").exists()


def test_mistakes_of_the_command_line(folder):
    made.fairseq_hubert(folder / "mine.pt")
    for arguments, told in [
        ((), "Which model"),
        (("hubert",), "Which hubert"),
        (("nothing-of-the-sort",), "not there"),
        ((folder / "mine.pt",), "--name NAME"),
        ((folder / "absent.pt", "--name", "x"), "cannot be read"),
        ((folder / "mine.pt", "--name", "a b"), "cannot be a model's name"),
        ((folder / "mine.pt", "--name", "hubert-base-ls960"), "the name of a published model"),
        (("hubert-base-ls960", "--name", "x"), "keeps its name"),
        (("cpc-big-ll6k-kmeans-50",), "CPC"),
        (("hubert-base-ls960-kmeans-50-tacotron",), "Tacotron"),
    ]:
        with pytest.raises(UsageError, match=told):
            run(*arguments)
    run(folder / "mine.pt", "--name", "mine")
    with pytest.raises(UsageError, match="model folder already"):
        run(folder / "models" / "mine", "--name", "x")


def test_the_list(folder, capsys):
    made.fairseq_hubert(folder / "mine.pt")
    run(folder / "mine.pt", "--name", "mine")
    run("--list")
    told = capsys.readouterr().out
    assert "  mine  (hubert, fairseq" in told
    assert all(name in told for name in known.names() if known.find(name).name == name)


def test_as_a_program(folder):
    made.fairseq_hubert(folder / "mine.pt")
    command = [sys.executable, "-m", "pipelines.units.importing"]
    done = subprocess.run([*command, str(folder / "mine.pt")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("voxarray: How is mine.pt to be called?")
    done = subprocess.run(
        [*command, str(folder / "mine.pt"), "--name", "mine"], capture_output=True, text=True, check=True
    )
    assert "mine: HuBERT" in done.stdout
    assert models.exists("mine")


# -- transformers


@pytest.fixture(scope="module")
def theirs():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.HubertConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, conv_dim=[32] * 7
    )
    return transformers.HubertModel(config).eval()


def features(name):
    waveform = torch.randn(1, 8_000, generator=torch.Generator().manual_seed(0)) * 0.1
    return Hubert.load(models.describe(name, "hubert"), 2)(waveform)


def test_each_layout_of_transformers_is_the_same_model(theirs, folder):
    theirs.save_pretrained(folder / "whole")
    theirs.save_pretrained(folder / "shards", max_shard_size="200KB")
    assert len(list((folder / "shards").glob("model-*.safetensors"))) > 1
    _as_pickles(folder / "whole", folder / "bin", dict)
    _as_pickles(folder / "whole", folder / "older", _older_names)
    _as_pickles(folder / "whole", folder / "ctc", _with_head)
    for name in ("whole", "shards", "bin", "older", "ctc"):
        run(folder / name, "--name", name)
        assert torch.equal(features(name), features("whole")), name
        assert models.describe(name).source.format == "transformers"
    digests = {models.describe(name).digest for name in ("whole", "shards", "bin", "older", "ctc")}
    assert len(digests) == 1


def _as_pickles(source, target, change):
    from safetensors.torch import load_file

    target.mkdir()
    (target / "config.json").write_bytes((source / "config.json").read_bytes())
    torch.save(change(load_file(source / "model.safetensors")), target / "pytorch_model.bin")


def _older_names(weights):
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    return {functools.reduce(lambda k, pair: k.replace(*pair), names.items(), key): v for key, v in weights.items()}


def _with_head(weights):
    return {**{f"hubert.{key}": v for key, v in weights.items()}, "lm_head.weight": torch.zeros(3, 64)}


@pytest.mark.parametrize(("preprocessor", "option", "expected"), [
    (None, (), False),
    ({"do_normalize": True}, (), True),
    ({"do_normalize": False}, (), False),
    ({"do_normalize": True}, ("--no-normalize",), False),
    (None, ("--normalize",), True),
])  # fmt: skip
def test_whether_waveforms_are_normalised(theirs, folder, preprocessor, option, expected):
    theirs.save_pretrained(folder / "hf")
    if preprocessor is not None:
        (folder / "hf" / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    run(folder / "hf", "--name", "x", *option)
    assert models.describe("x").config["normalize"] is expected


@pytest.mark.parametrize(("change", "told"), [
    ({"model_type": "wav2vec2"}, "'wav2vec2'"),
    ({"hidden_act": "relu"}, "hidden_act = 'relu'"),
    ({"layer_norm_eps": 1e-6}, "layer_norm_eps"),
    ({"num_hidden_layers": 3}, r"lacks 16 .*layers\.2"),
    ({"conv_dim": [32] * 6}, "different lengths"),
    ({"hidden_size": 32}, r"not \(32"),
    ({"conv_pos_batch_norm": True}, r"position\.norm"),
])  # fmt: skip
def test_a_folder_that_does_not_add_up(theirs, folder, change, told):
    theirs.save_pretrained(folder / "hf")
    path = folder / "hf" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UsageError, match=told):
        run(folder / "hf", "--name", "x")
    assert not models.exists("x")


def test_folders_with_parts_missing(theirs, folder):
    theirs.save_pretrained(folder / "hf", max_shard_size="200KB")
    shard = min((folder / "hf").glob("model-*.safetensors"))
    data = shard.read_bytes()
    shard.write_bytes(data[: len(data) // 2])
    with pytest.raises(UsageError, match="cut off"):
        run(folder / "hf", "--name", "x")
    shard.unlink()
    with pytest.raises(UsageError, match=shard.name):
        run(folder / "hf", "--name", "x")
    (folder / "hf" / "model.safetensors.index.json").unlink()
    with pytest.raises(UsageError, match="no weights"):
        run(folder / "hf", "--name", "x")
    (folder / "hf" / "config.json").unlink()
    with pytest.raises(UsageError, match=r"config\.json cannot be read"):
        run(folder / "hf", "--name", "x")


def test_a_name_of_the_hub(theirs, folder, monkeypatch):
    with pytest.raises(UsageError, match=r"hf download someone/hubert"):
        run("someone/hubert", "--name", "x", "--no-download")
    stored = folder / "cache" / "hub" / "models--someone--hubert"
    theirs.save_pretrained(stored / "snapshots" / "abc")
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("abc")
    monkeypatch.setenv("HF_HOME", str(folder / "cache"))
    run("someone/hubert", "--name", "x")
    assert models.describe("x").source.file.endswith("snapshots/abc/model.safetensors")
