"""`kmeans` through the engine: the same codebook whatever the tasks and the order, as a model folder, resumable."""

from __future__ import annotations

import json
import wave

import numpy as np
import pytest
import torch

from pipelines.core.errors import ItemError, UsageError
from pipelines.core.manifest import Item, key_of
from pipelines.core.pipeline import Resources
from pipelines.kmeans import processor as sampling
from pipelines.kmeans.processor import SampleProcessor
from pipelines.units import models
from pipelines.units.codebook import Codebook
from pipelines.units.fitting import hashes
from pipelines.units.logmel import LogMel
from tests import corpus
from tests.core.world import World

OPTIONS = ("--clusters", "40", "--frames", "1000")


@pytest.fixture
def world():
    with World(VOXARRAY_DEVICE="cpu", OMP_NUM_THREADS="1") as made:
        yield made


def rows(paths):
    found = []
    for path in paths:
        with wave.open(str(path)) as file:
            found.append({"audio_filepath": str(path), "duration": file.getnframes() / file.getframerate()})
    return found


def fitted(world, name="book"):
    folder = world.home / "output" / "models" / name
    return (folder / "model.safetensors").read_bytes(), json.loads((folder / "model.json").read_bytes())


@pytest.fixture(scope="module")
def once(prompts):
    """The codebook of one task over the manifest as it stands."""
    with World(VOXARRAY_DEVICE="cpu", OMP_NUM_THREADS="1") as world:
        status, said = world.command(world.write(rows(prompts)), "book", *OPTIONS, pipeline="kmeans")
        assert status == 0, said
        assert "% of the spread explained" in said
        return fitted(world)


@pytest.mark.parametrize(("tasks", "backwards"), [(3, False), (7, True)])
def test_tasks_and_order_change_no_byte(world, prompts, once, tasks, backwards):
    listed = rows(prompts)[::-1] if backwards else rows(prompts)
    manifest = world.write(listed)
    ended = world.array("700", range(tasks), manifest, "book", *OPTIONS, pipeline="kmeans")
    assert [status for status, _ in ended] == [0] * tasks, ended
    weights, description = fitted(world)
    assert weights == once[0]
    assert description["digest"] == once[1]["digest"]
    for figure in ("items", "frames", "inertia", "spread", "rounds", "smallest_cluster"):
        assert description["config"]["fitted"][figure] == once[1]["config"]["fitted"][figure]


def test_the_model_folder_is_one(once, prompts, tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "model.safetensors").write_bytes(once[0])
    (tmp_path / "book" / "model.json").write_text(json.dumps(once[1]))
    info = models.describe(str(tmp_path / "book"), "codebook")
    assert info.config["clusters"] == 40
    assert info.config["features"]["kind"] == "logmel"
    assert info.source.format == "fitted"
    book = Codebook.load(info)
    assert (book.size, book.width) == (40, 80)
    statistics = info.config["fitted"]
    assert statistics["items"] == len(prompts)
    assert statistics["frames"] == 1000
    assert statistics["smallest_cluster"] >= 1
    assert statistics["inertia"] < 0.25 * statistics["spread"]
    assert models.resolve_units(str(tmp_path / "book")).layer is None


def test_the_same_command_again_does_nothing_and_another_is_refused(world, prompts):
    manifest = world.write(rows(prompts[:6]))
    few = ("--clusters", "20", "--frames", "500")
    assert world.command(manifest, "book", *few, pipeline="kmeans")[0] == 0
    before = fitted(world)
    status, said = world.command(manifest, "book", *few, pipeline="kmeans")
    assert (status, fitted(world)) == (0, before), said
    status, said = world.command(manifest, "book", "--clusters", "21", "--frames", "500", pipeline="kmeans")
    assert (status, fitted(world)) == (2, before)
    assert "There is a model named book already" in said


def test_bad_recordings_are_left_out_and_said(world, prompts):
    bad = corpus.bad_files(world.root / "bad", prompts[0])
    listed = [*rows(prompts[:6]), {"audio_filepath": str(bad["not_audio.wav"]), "duration": 9.0}]
    status, said = world.command(world.write(listed), "book", "--clusters", "10", "--frames", "800", pipeline="kmeans")
    assert status == 1
    assert "1 quarantined" in said
    assert fitted(world)[1]["config"]["fitted"]["items"] == 6


def test_too_few_distinct_frames_say_what_to_do(world):
    silent = corpus.write_wave(world.root / "silence.wav", np.zeros(64_000, np.int16))
    status, said = world.command(world.write(rows([silent])), "book", "--clusters", "10", pipeline="kmeans")
    assert status == 2
    assert "1 different frames in the sample, too few for 10 clusters" in said
    folder = world.home / "output" / "models"
    assert not list(folder.rglob("*"))[1:]


# -- the sample of one item


PARAMETERS = {"seed": 0, "hop": 320, "dense_model": None, "rate": 1.0}


def sampler(monkeypatch, **parameters):
    monkeypatch.setenv("VOXARRAY_DEVICE", "cpu")
    return SampleProcessor({**PARAMETERS, **parameters}, Resources())


def item(path, duration=None, **fields):
    row = {"audio_filepath": str(path), **({"duration": duration} if duration is not None else {}), **fields}
    offset = fields.get("offset", 0.0)
    return Item(0, key_of(str(path), offset), str(path), duration, offset, json.dumps(row).encode())


def features(result):
    assert not isinstance(result, Exception), result
    return np.frombuffer(result["features"], "<f4").reshape(result["sampled"], -1)


def test_at_rate_1_every_frame_is_there(monkeypatch, prompts):
    (result,) = sampler(monkeypatch).process([item(prompts[0], rows(prompts[:1])[0]["duration"])])
    waveform = torch.from_numpy(corpus.read_wave(prompts[0]).astype(np.float32) / 32768)
    expected = LogMel()(waveform[None])[0].numpy()
    assert np.array_equal(features(result), expected)
    key = item(prompts[0]).key
    assert np.array_equal(np.frombuffer(result["hashes"], "<u8"), hashes(key, 0, len(expected)))


@pytest.mark.parametrize("said", [1.0, None, 500.0])
def test_a_wrong_duration_and_long_pieces_change_nothing(monkeypatch, prompts, said):
    """Pieces of 1 s; recordings whose manifests say too little, nothing, or too much."""
    path = prompts[0]
    whole = features(sampler(monkeypatch).process([item(path, rows([path])[0]["duration"])])[0])
    monkeypatch.setattr(sampling, "CHUNK_S", 1.0)
    assert np.array_equal(features(sampler(monkeypatch).process([item(path, said)])[0]), whole)


def test_the_share_of_frames_is_the_rate_and_nested(monkeypatch, prompts):
    listed = [item(row["audio_filepath"], row["duration"]) for row in rows(prompts)]
    kept = {}
    for rate in (1.0, 0.5, 0.1):
        results = sampler(monkeypatch, rate=rate).process(listed)
        kept[rate] = {number for result in results for number in np.frombuffer(result["hashes"], "<u8").tolist()}
    assert kept[0.1] < kept[0.5] < kept[1.0]
    assert len(kept[0.5]) / len(kept[1.0]) == pytest.approx(0.5, abs=0.05)


def test_a_recording_without_a_frame_in_the_sample_is_not_even_read(monkeypatch):
    (result,) = sampler(monkeypatch, rate=1e-12).process([item("/no/such/file.wav", 10.0)])
    assert result == {"sampled": 0, "hashes": b"", "features": b""}


def test_a_stretch_of_a_recording(monkeypatch, prompts):
    path = max(prompts, key=lambda each: each.stat().st_size)
    samples = corpus.read_wave(path)[8000:24000]
    (result,) = sampler(monkeypatch).process([item(path, 1.0, offset=0.5)])
    expected = LogMel()(torch.from_numpy(samples.astype(np.float32) / 32768)[None])[0].numpy()
    assert np.array_equal(features(result), expected)


def test_one_bad_item_does_not_touch_the_others(monkeypatch, prompts):
    results = sampler(monkeypatch).process([item("/no/such/file.wav", 3.0), item(prompts[0], 2.0)])
    assert isinstance(results[0], ItemError)
    assert len(features(results[1]))


def test_features_that_are_no_numbers_are_an_error_of_the_item(monkeypatch, prompts):
    made = sampler(monkeypatch)
    monkeypatch.setattr(made._features, "forward", lambda *_: torch.full((1, 500, 80), torch.nan))
    (result,) = made.process([item(prompts[0], 2.0)])
    assert isinstance(result, ItemError)
    assert "not all numbers" in str(result)


# -- features of an encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """The folder of models with a small HuBERT `tiny`, and one that normalises, imported from fairseq's format."""
    from pipelines.units import importing
    from tests.units.made import fairseq_hubert

    where = tmp_path_factory.mktemp("encoder")
    fairseq_hubert(where / "tiny.pt", layers=3)
    fairseq_hubert(where / "normal.pt", layers=3, normalize=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOXARRAY_MODELS", str(where / "models"))
        for name in ("tiny", "normal"):
            importing.main(["hubert", str(where / f"{name}.pt"), "--name", name])
    return where / "models"


def hubert_of(encoder, layer, name="tiny"):
    from pipelines.units.hubert import Hubert

    return Hubert.load(models.describe(str(encoder / name), "hubert"), layer)


def test_features_of_an_encoder(monkeypatch, prompts, encoder):
    info = models.describe(str(encoder / "tiny"), "hubert")
    asked = {"dense_model": str(info.folder), "dense_digest": info.digest, "layer": 2}
    made = sampler(monkeypatch, **asked, rate=0.5)
    (result,) = made.process([item(prompts[0], rows(prompts[:1])[0]["duration"])])
    waveform = torch.from_numpy(corpus.read_wave(prompts[0]).astype(np.float32) / 32768)
    expected = hubert_of(encoder, 2)(waveform[None], None)[0].numpy()
    chosen = hashes(item(prompts[0]).key, 0, len(expected)) <= np.uint64(2**63)
    assert 0 < chosen.sum() < len(expected)
    assert np.array_equal(features(result), expected[chosen])
    with pytest.raises(UsageError, match="not the one that this run began with"):
        sampler(monkeypatch, **{**asked, "dense_digest": "0" * 64})


class Seen:
    """A codebook that keeps what it is asked."""

    size = 2

    def __init__(self):
        self.features = []

    def assign(self, features):
        self.features.append(features)
        return torch.zeros(len(features), dtype=torch.int64)


@pytest.mark.parametrize("name", ["tiny", "normal"])
def test_what_is_fitted_on_is_what_encode_computes(monkeypatch, prompts, encoder, tmp_path, name):
    """Pieces of 10 s, of a recording that becomes louder: one normalised by itself would differ."""
    from pipelines.units.encoder import UnitEncoder

    speech = np.resize(np.concatenate([corpus.read_wave(path) for path in prompts]), 25 * 16_000)
    louder = (speech * np.linspace(0.05, 1, len(speech))).astype(np.int16)
    path = corpus.write_wave(tmp_path / "long.wav", louder)
    seen = Seen()
    coder = UnitEncoder(hubert_of(encoder, 2, name), seen, torch.device("cpu"), chunk_s=10.0)
    coder.encode([louder.astype(np.float32) / 32768])
    assert len(seen.features) > 1
    monkeypatch.setattr(sampling, "CHUNK_S", 10.0)
    info = models.describe(str(encoder / name), "hubert")
    made = sampler(monkeypatch, dense_model=str(info.folder), dense_digest=info.digest, layer=2)
    (result,) = made.process([item(path, 25.0)])
    assert np.array_equal(features(result), torch.cat(seen.features).numpy())


def test_a_codebook_of_an_encoders_layer(world, prompts, encoder):
    options = ("--features", "tiny", "--layer", "2", "--clusters", "20", "--frames", "600")
    made = []
    for name, tasks in (("one", 1), ("three", 3)):
        done = world.array(
            "7",
            range(tasks),
            world.write(rows(prompts), f"{name}.json"),
            name,
            *options,
            pipeline="kmeans",
            VOXARRAY_MODELS=str(encoder),
        )
        assert [status for status, _ in done] == [0] * tasks, done
        made.append((encoder / name / "model.safetensors").read_bytes())
    assert made[0] == made[1]
    info = models.describe(str(encoder / "one"), "codebook")
    digest = models.describe(str(encoder / "tiny")).digest
    assert info.config["features"] == {"kind": "hubert", "model": "tiny", "layer": 2, "digest": digest}
    assert info.config["width"] == hubert_of(encoder, 2).width


def test_a_codebook_of_an_encoder_given_by_its_folder(world, prompts, encoder):
    """There is no model of that name among the others; one of the same name would be another."""
    options = ("--features", str(encoder / "tiny"), "--layer", "2", "--clusters", "5", "--frames", "200")
    status, said = world.command(world.write(rows(prompts[:2])), "book", *options, pipeline="kmeans")
    assert status == 0, said
    assert fitted(world)[1]["config"]["features"]["model"] == str(encoder / "tiny")
    assert models.resolve_units(str(world.home / "output" / "models" / "book")).dense.folder == encoder / "tiny"
