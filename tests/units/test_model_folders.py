"""Model folders: found by name or path, described, and what is told when they are missing or damaged."""

from __future__ import annotations

import json
import multiprocessing
import os

import numpy as np
import pytest

from pipelines.core.errors import UsageError
from pipelines.units import folders, models

CONFIG = {"width": 4, "layers": 12}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv(models.VARIABLE, str(tmp_path / "models"))
    return tmp_path / "models"


def source(digest="a" * 64):
    return models.Source("/data/weights.pt", digest, 10, "fairseq")


def publish(name, kind="hubert", config=CONFIG, *, digest="a" * 64, replace=False, tensors=None):
    tensors = {"x": np.arange(8.0)} if tensors is None else tensors
    return folders.publish(
        models.place(name), kind=kind, config=config, source=source(digest), tensors=tensors, replace=replace
    )


def codebook(name, model="dense", layer=3, width=4, **known):
    features = {"kind": "hubert", "model": model, "layer": layer, **known}
    return publish(name, "codebook", {"clusters": 2, "width": width, "features": features})


def test_published_and_described(home):
    assert publish("mine")
    found = models.describe("mine", "hubert")
    assert (found.name, found.kind, found.folder, found.config) == ("mine", "hubert", home / "mine", CONFIG)
    assert found.source == source()
    assert models.describe(str(home / "mine")) == found
    assert [each.name for each in models.installed()] == ["mine"]


def test_weights_are_what_safetensors_reads():
    safetensors = pytest.importorskip("safetensors.numpy")
    tensors = {
        "b": np.float64([[1, 2, 3], [4, 5, 6]]),
        "a": np.float16([0.5]),
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "number": np.float32(3.5),
        "none": np.zeros((0, 3), np.float32),
    }
    publish("mine", tensors=tensors)
    read = safetensors.load_file(models.describe("mine").weights)
    assert set(read) == set(tensors)
    for name, value in tensors.items():
        assert read[name].dtype == np.float32
        assert np.array_equal(read[name], value)
    data = models.describe("mine").weights.read_bytes()
    assert (8 + int.from_bytes(data[:8], "little")) % 64 == 0


def test_the_digest_is_of_the_weights_alone():
    publish("one")
    publish("two", digest="b" * 64)
    one, two = models.describe("one"), models.describe("two")
    assert one.digest == two.digest
    from pipelines.core.store import sha256_of

    assert one.digest == sha256_of(one.weights)


def test_the_same_source_again_is_no_work(home):
    assert publish("mine")
    before = (home / "mine" / models.DESCRIPTION).stat().st_mtime_ns
    assert not publish("mine")
    assert not publish("mine", replace=True)
    assert (home / "mine" / models.DESCRIPTION).stat().st_mtime_ns == before


@pytest.mark.parametrize("change", [{"digest": "b" * 64}, {"config": {"width": 5}}, {"kind": "codebook"}])
def test_another_model_is_refused_until_it_is_to_replace(home, change):
    publish("mine")
    with pytest.raises(UsageError, match="--replace"):
        publish("mine", **change)
    assert models.describe("mine").config == CONFIG
    assert publish("mine", **change, replace=True)
    assert [path.name for path in home.iterdir()] == ["mine"]


def test_never_half_a_folder(home, monkeypatch):
    class Breaks:
        shape = (4,)

        def __array__(self, *_, **__):
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        publish("mine", tensors={"a": np.zeros(3), "b": Breaks()})
    assert list(home.iterdir()) == []
    publish("mine")
    with pytest.raises(RuntimeError, match="power cut"):
        publish("mine", digest="b" * 64, tensors={"b": Breaks()}, replace=True)
    assert models.describe("mine").source.sha256 == "a" * 64


def test_what_a_killed_import_left_is_swept(home):
    publish("mine")
    process = multiprocessing.get_context("fork").Process(target=_die_in_the_middle)
    process.start()
    process.join()
    assert len(list(home.glob(".other.*.tmp"))) == 1
    publish("other")
    assert sorted(path.name for path in home.iterdir()) == ["mine", "other"]


def _die_in_the_middle():
    from pipelines.core import store

    store.ATTEMPT = f"{store.ATTEMPT.rsplit('-', 2)[0]}-{os.getpid()}-{'0' * 8}"

    class Kills:
        shape = (4,)

        def __array__(self, *_, **__):
            os._exit(9)

    publish("other", tensors={"a": np.zeros(3), "b": Kills()})


def test_many_at_once_make_one(home):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=publish, args=("mine",)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6
    assert [path.name for path in home.iterdir()] == ["mine"]
    assert models.describe("mine").config == CONFIG


def test_units_resolve_to_codebook_encoder_and_layer():
    publish("dense")
    codebook("units")
    found = models.resolve_units("units")
    assert (found.codebook.name, found.dense.name, found.layer) == ("units", "dense", 3)
    assert models.resolve_units(str(models.place("units"))).dense.name == "dense"
    publish("mel", "codebook", {"clusters": 2, "width": 80, "features": {"kind": "logmel"}})
    assert models.resolve_units("mel").dense is None


def test_a_codebook_of_an_encoder_that_was_replaced():
    publish("dense")
    codebook("units", digest=models.describe("dense").digest)
    codebook("older")
    models.resolve_units("units")
    publish("dense", digest="b" * 64, tensors={"x": np.arange(9.0)}, replace=True)
    with pytest.raises(UsageError, match=r"another dense than the one in .*--features dense --layer 3"):
        models.resolve_units("units")
    models.resolve_units("older")


def test_an_encoders_digest_is_no_other_codebook_where_one_side_does_not_know_it():
    codebook("units")
    assert not codebook("units", digest="a" * 64)
    codebook("units2", digest="a" * 64)
    assert not codebook("units2")
    with pytest.raises(UsageError, match="--replace"):
        codebook("units2", digest="b" * 64)


@pytest.mark.parametrize(("options", "told"), [
    ({"layer": 13}, "layers 1 to 12"),
    ({"width": 5}, "another encoder"),
    ({"model": None}, "--dense-model"),
    ({"model": "absent"}, "absent"),
])  # fmt: skip
def test_a_codebook_that_does_not_fit(options, told):
    publish("dense")
    codebook("units", **options)
    with pytest.raises(UsageError, match=told):
        models.resolve_units("units")


def test_all_that_is_missing_is_told_at_once(home):
    name = "mhubert-base-vp_mls_cv_8lang-kmeans-expresso-2000"
    with pytest.raises(UsageError) as caught:
        models.resolve_units(name)
    told = str(caught.value)
    assert f"import-checkpoint {name}`" in told
    assert "import-checkpoint mhubert-base-vp_mls_cv_8lang`" in told
    assert str(home) in told
    assert "\n" not in told


@pytest.mark.parametrize(("name", "told"), [
    ("hubert-base-ls960-kmean-100", "Did you mean .*hubert-base-ls960-kmeans-100"),
    ("cpc-big-ll6k-kmeans-50", "CPC"),
    ("./nowhere", "no such folder"),
    ("a b", "cannot be a model's name"),
    ("", "cannot be a model's name"),
    (".hidden", "cannot be a model's name"),
])  # fmt: skip
def test_names_that_mean_nothing(name, told):
    with pytest.raises(UsageError, match=told):
        models.describe(name)


def test_the_wrong_kind():
    publish("dense")
    with pytest.raises(UsageError, match=r"an encoder .* a codebook is needed"):
        models.describe("dense", "codebook")


def test_a_layers_name_is_its_files_model(home):
    publish("hubert-base-ls960")
    found = models.describe("hubert-base-ls960-layer-9", "hubert")
    assert (found.name, found.layer) == ("hubert-base-ls960", 9)
    assert models.describe("hubert-base-ls960").layer == 6


@pytest.mark.parametrize("damage", ["cut", "no weights", "no json", "newer", "other kind"])
def test_damage_is_told(home, damage):
    publish("mine")
    weights, description = home / "mine" / models.WEIGHTS, home / "mine" / models.DESCRIPTION
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "no weights":
        weights.unlink()
    elif damage == "no json":
        description.write_text("{")
    else:
        change = {"newer": {"format": 2}, "other kind": {"kind": "cpc"}}[damage]
        description.write_text(json.dumps({**json.loads(description.read_text()), **change}))
    with pytest.raises(UsageError, match=r"--replace|newer version"):
        models.describe("mine")
    assert models.installed() == []
    assert publish("mine", replace=True)
    assert models.describe("mine").config == CONFIG


def test_nothing_heavy_is_imported():
    import subprocess
    import sys

    code = (
        "import sys\nfrom pipelines.core.errors import UsageError\n"
        "from pipelines.units import models, known, importing\n"
        "try: models.resolve_units('hubert-base-ls960-kmeans-50')\nexcept UsageError: pass\n"
        "print({'numpy', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
