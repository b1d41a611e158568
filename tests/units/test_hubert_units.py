"""HuBERT's units and a unit HiFi-GAN through the pipelines, from checkpoints in the published formats."""

from __future__ import annotations

from functools import partialmethod

import numpy as np
import pytest
import torch

from pipelines.units import encoder, importing, models
from pipelines.units.hubert import Hubert
from pipelines.units.packed import PackedUnits
from tests import corpus
from tests.units.made import codehifigan, fairseq_hubert, joblib_kmeans
from tests.units.stage import RATE, Stage, rows_of, samples_of

KINDS = {
    "weight-norm": {},
    "batch-norm": {"batch_norm": True},
    "normalized": {"normalize": True},
    "slow": {"hop": 640},
}
LAYER, CLUSTERS = 2, 50


@pytest.fixture(scope="module")
def stage():
    try:
        corpus.prompts("en")
    except corpus.Missing as reason:
        pytest.skip(str(reason))
    with Stage() as made:
        for name, settings in KINDS.items():
            import_all(made, name, settings)
        yield made


def import_all(stage, name, settings):
    """An encoder, a codebook of its own features, and a vocoder, imported as a user would."""
    folder = stage.root / "published" / name
    folder.mkdir(parents=True)
    fairseq_hubert(folder / "hubert.pt", **settings)
    assert importing.main(["hubert", str(folder / "hubert.pt"), "--name", name]) == 0
    model = Hubert.load(models.describe(name, "hubert"), LAYER)
    speech = np.concatenate([corpus.read_wave(path) for path in corpus.speech("en", 12, longest=4.0)])
    features = model(torch.from_numpy(speech[: 12 * RATE].astype(np.float32) / 32768)[None], None)[0]
    chosen = torch.randperm(len(features), generator=torch.Generator().manual_seed(1))[:CLUSTERS]
    joblib_kmeans(folder / "km.bin", features[chosen].numpy())
    where = ["--dense-model", name, "--layer", str(LAYER)]
    assert importing.main(["kmeans", str(folder / "km.bin"), "--name", f"{name}-km", *where]) == 0
    rates = (5, 4, 4, 2, 2) if settings.get("hop", 320) == 320 else (5, 4, 4, 4, 2)
    codehifigan(folder, vocabulary=CLUSTERS, rates=rates)
    names = ["--speakers", str(folder / "speakers.txt"), "--styles", str(folder / "styles.txt")]
    files = [str(folder / "generator.pt"), str(folder / "config.json")]
    assert importing.main(["hifigan", *files, "--name", f"{name}-km-hifigan", *names]) == 0


@pytest.fixture(scope="module")
def rows(stage):
    return stage.speech(10, longest=4.0)


@pytest.fixture(scope="module")
def waveforms(rows):
    """Real speech of many lengths, from 400 samples to 5 s, float32."""
    whole = np.concatenate([samples_of(row["audio_filepath"]) for row in rows]).astype(np.float32) / 32768
    lengths = [400, 401, 719, 720, 4000, 7777, *np.linspace(8_000, 80_000, 18).astype(int)]
    starts = np.linspace(0, len(whole) - 80_000, len(lengths)).astype(int)
    return [whole[start : start + length] for start, length in zip(starts, lengths)]


def parameters(name):
    from pipelines.units import options

    chosen = options.of_units(f"{name}-km")
    return {**chosen, "backend": "native", "precision": "fp32", "chunking": "overlapping", "chunk_s": 100.0}


@pytest.mark.parametrize(("padded", "near_ties"), [(False, 0.0), (True, 0.002)])
@pytest.mark.parametrize("name", KINDS)
def test_batches_of_1_4_and_24_give_the_same_units(stage, waveforms, name, padded, near_ties, monkeypatch):
    """The layout of CPUs and, with padding in what is computed, that of GPUs; there, frames near a tie may differ."""
    monkeypatch.setattr(encoder, "_PADDING", 1.0)
    alone = encoder.load(parameters(name), 0.0).encode(waveforms)
    assert len(np.unique(np.concatenate(alone))) > CLUSTERS / 2, "the units tell something"
    monkeypatch.setattr(Hubert, "__init__", partialmethod(Hubert.__init__, padded=padded))
    for batch_s in (20.0, 24 * 5.0):
        loaded = encoder.load(parameters(name), batch_s)
        batched = loaded.encode(waveforms)
        assert list(map(len, batched)) == list(map(len, alone))
        assert (np.concatenate(batched) != np.concatenate(alone)).mean() <= near_ties
    assert loaded.padding.share > 0.2, "there was padding to be seen through"


def test_batches_hold_little_padding(stage, waveforms):
    loaded = encoder.load(parameters("weight-norm"), 60.0)
    loaded.encode(waveforms * 4)
    assert 0 < loaded.padding.share < 0.1


@pytest.mark.parametrize("name", KINDS)
def test_encode_and_sts_from_published_formats(stage, rows, name):
    manifest = stage.write(rows, f"{name}.json")
    status, said = stage.give("encode", manifest, f"{name}-units", "--units", f"{name}-km", "--tasks", 2)
    assert status == 0, said
    packed = PackedUnits(stage.home / "output" / f"{name}-units" / "units")
    hop = KINDS[name].get("hop", 320)
    assert packed.description.rate == RATE / hop
    for row, item in enumerate(rows):
        samples = round(item["duration"] * RATE)
        window = 400 if hop == 320 else 720
        assert len(packed.frames(row)) == (samples - window) // hop + 1
    options = ["--units", f"{name}-km", "--root", stage.data, "--speaker", "ex02", "--style", "1"]
    status, said = stage.give("sts", manifest, f"{name}-said", *options)
    assert status == 0, said
    status, said = stage.give("sts", manifest, f"{name}-again", *options, "--from", "units", "--tasks", 3)
    assert status == 0, said
    for row in rows_of(stage.home / "output" / f"{name}-said" / f"{name}.json"):
        speech = samples_of(row["audio_filepath"])
        assert len(speech) == len(samples_of(row["source_audio_filepath"]))
        assert (speech == samples_of(row["audio_filepath"].replace("-said/", "-again/"))).all()


def test_another_speaker_is_another_voice(stage, rows):
    manifest = stage.write(rows[:2], "voices.json")
    made = []
    for speaker in ("ex01", "2"):
        where = f"voice{speaker}"
        options = ["--units", "weight-norm-km", "--root", stage.data, "--speaker", speaker]
        assert stage.give("sts", manifest, where, *options)[0] == 0
        made.append(samples_of(rows_of(stage.home / "output" / where / "voices.json")[0]["audio_filepath"]))
    assert (made[0] != made[1]).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--speaker", "nobody"], "has no speaker 'nobody'. It has 3: ex01; ex02; lj"),
        (["--style", "7"], "has no style '7'. It has 2: read-default; read-happy"),
        (["--vocoder", "griffin-lim"], "cannot undo"),
        (["--vocoder", "other-hifigan"], "speaks 7 different units, and the quantizer weight-norm-km gives 50"),
        (["--vocoder", "weight-norm"], "is an encoder (HuBERT), and a vocoder"),
    ],
)
def test_voices_that_do_not_fit_are_named(stage, rows, options, message):
    if not models.exists("other-hifigan"):
        folder = codehifigan(stage.root / "published" / "other", vocabulary=7)
        files = [str(folder / "generator.pt"), str(folder / "config.json")]
        names = ["--speakers", str(folder / "speakers.txt"), "--styles", str(folder / "styles.txt")]
        assert importing.main([*files, "--name", "other-hifigan", *names]) == 0
    status, said = stage.give("sts", stage.write(rows, "fit.json"), "corpus", "--units", "weight-norm-km", *options)
    assert status == 2
    assert message in said


def test_the_longest_recordings_go_in_pieces_that_agree_with_the_whole_but_near_the_cuts(stage, rows):
    """Context of 4 s on both sides: units beyond attention's reach of a cut may differ, and few do."""
    speech = np.concatenate([samples_of(row["audio_filepath"]) for row in rows])
    long = np.tile(speech, 4)[: 60 * RATE].astype(np.float32) / 32768
    settings = parameters("weight-norm")
    (whole,) = encoder.load(settings).encode([long])
    (pieces,) = encoder.load({**settings, "chunk_s": 20.0}).encode([long])
    assert len(whole) == len(pieces)
    assert (whole != pieces).mean() < 0.25


def test_precision_bf16_is_close(stage, waveforms):
    settings = parameters("weight-norm")
    full = encoder.load(settings).encode(waveforms[6:12])
    half = encoder.load({**settings, "precision": "bf16"}).encode(waveforms[6:12])
    same = np.concatenate(full) == np.concatenate(half)
    assert 0.8 < same.mean() < 1.0
