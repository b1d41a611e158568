"""Voices: chosen by name, fitting their units, each sequence's sound its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.core.errors import ItemError, UsageError
from pipelines.units import models, synthesis
from pipelines.units.synthesis import VocoderVoice, load_synthesiser
from tests.units.voices import codebook_folder, folder, vocoder, vocoder_folder


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder of models: the vocoder `voice`, one without speakers, `bands` (50 log-mel centroids)."""
    where = tmp_path_factory.mktemp("models")
    vocoder_folder(where)
    vocoder_folder(where, "single", speakers=None, styles=None)
    random = np.random.default_rng(0)
    codebook_folder(where, "bands", random.normal(-6, 3, (50, 80)))
    features = {"kind": "hubert", "model": "hubert-base-ls960", "layer": 6}
    config = {"clusters": 50, "width": 768, "features": features}
    folder(where, "phones", "codebook", config, {"centroids": random.normal(size=(50, 768)).astype(np.float32)})
    return where


def voice(shelf, **parameters):
    given = {"vocoder": str(shelf / "voice"), "codebook": str(shelf / "bands"), **parameters}
    return load_synthesiser(given)


def units_of(*lengths, size=50):
    random = np.random.default_rng(1)
    return [random.integers(0, size, length).astype(np.uint16) for length in lengths]


@pytest.fixture(params=["voice", "griffin-lim"])
def any_voice(request, shelf):
    return voice(shelf, vocoder=str(shelf / "voice") if request.param == "voice" else "griffin-lim")


def test_what_every_voice_promises(any_voice):
    assert (any_voice.rate, any_voice.hop, any_voice.vocabulary_size, any_voice.on_gpu) == (16000, 320, 50, False)
    lengths = (40, 1, 0, 73, 2)
    sounds = any_voice.speak(units_of(*lengths))
    assert [sound.shape for sound in sounds] == [(320 * length,) for length in lengths]
    assert all(sound.dtype == np.float32 and np.abs(sound).max(initial=0) <= 1 for sound in sounds)
    assert any_voice.speak([]) == []


def test_each_sound_is_of_its_own_units_alone(any_voice):
    sequences = units_of(40, 7, 73)
    together = any_voice.speak(sequences)
    for sequence, sound in zip(sequences, together):
        assert np.array_equal(any_voice.speak([sequence])[0], sound)


def test_blocks_change_nothing(any_voice, monkeypatch):
    sequence = units_of(150)
    whole = any_voice.speak(sequence)[0]
    for size in (7, 50):
        monkeypatch.setattr(synthesis, "BLOCK", size)
        limit = 1e-6 if isinstance(any_voice, VocoderVoice) else 1e-4
        assert np.abs(any_voice.speak(sequence)[0] - whole).max() < limit


def test_padded_batches_as_on_a_gpu_change_next_to_nothing(shelf, monkeypatch):
    made = voice(shelf)
    sequences = units_of(40, 7, 73, 1, 120)
    alone = made.speak(sequences)
    made.on_gpu = True
    monkeypatch.setattr(synthesis, "BLOCK", 60)
    for one, other in zip(alone, made.speak(sequences)):
        assert np.abs(one - other).max() < 1e-5


def test_memory_does_not_grow_with_a_sequence(shelf, monkeypatch):
    made = vocoder(shelf / "spied")
    seen = []
    usual = made.generator.forward
    monkeypatch.setattr(
        made.generator, "forward", lambda units, *rest: seen.append(units.shape) or usual(units, *rest)
    )
    monkeypatch.setattr(synthesis, "BLOCK", 50)
    VocoderVoice(made).speak(units_of(400))
    assert len(seen) == 8
    assert all(rows == 1 and frames <= 50 + 2 * made.context for rows, frames in seen)


@pytest.mark.parametrize("unit", [50, 65535])
def test_a_unit_that_does_not_exist(any_voice, unit):
    with pytest.raises(ItemError, match=rf"Unit {unit} does not exist for the vocoder .*, which knows 50 units"):
        any_voice.speak([*units_of(4), np.array([3, unit], np.uint16)])


@pytest.mark.parametrize("units", [np.zeros((2, 2), np.uint16), np.zeros(3, np.float32)])
def test_what_are_no_units(any_voice, units):
    with pytest.raises(ItemError, match="one row of whole numbers"):
        any_voice.speak([units])


def test_speakers_and_styles_by_name_and_number(shelf):
    sequence = units_of(20)

    def said(**chosen):
        return voice(shelf, **chosen).speak(sequence)[0]

    assert np.array_equal(said(speaker="ex02", style="read-happy"), said(speaker=1, style="1"))
    assert np.array_equal(said(), said(speaker=0, style="read-default"))
    assert not np.array_equal(said(speaker="lj"), said(speaker="ex02"))


def test_a_speaker_that_is_not_there(shelf, tmp_path):
    with pytest.raises(UsageError, match=r"voice has no speaker 'bob'. It has 3: ex01; ex02; lj. Give one"):
        voice(shelf, speaker="bob")
    with pytest.raises(UsageError, match=r"no style 2. It has 2: read-default; read-happy"):
        voice(shelf, style=2)
    with pytest.raises(UsageError, match=r"single has a single speaker; leave --speaker out"):
        voice(shelf, vocoder=str(shelf / "single"), speaker=0)
    vocoder_folder(tmp_path, speakers=[f"s{n}" for n in range(30)])
    with pytest.raises(UsageError) as refused:
        voice(shelf, vocoder=str(tmp_path / "voice"), speaker="bob")
    assert "s9 … and 20 more" in str(refused.value)
    assert "s10" not in str(refused.value)


def test_a_vocoder_of_other_units(shelf):
    with pytest.raises(
        UsageError, match=r"vocoder voice speaks 50 different units, and the quantizer km-2000 gives 2,000"
    ):
        voice(shelf, units="km-2000", vocabulary_size=2000)


def test_a_vocoder_of_another_frame_rate(shelf):
    voice(shelf, units="km-50", vocabulary_size=50, rate=50.0)
    with pytest.raises(UsageError, match=r"voice speaks 50 units a second, and the quantizer km-50 gives 25"):
        voice(shelf, units="km-50", vocabulary_size=50, rate=25.0)


@pytest.mark.parametrize("where", ["", "/models/"])
def test_a_published_vocoder_of_other_published_units(tmp_path, where):
    """Of one size and rate: only their names tell the two apart."""
    units = ["mhubert-base-vp_mls_cv_8lang-kmeans-2000", "mhubert-base-vp_mls_cv_8lang-kmeans-expresso-2000"]
    vocoder_folder(tmp_path, f"{units[0]}-hifigan", num_embeddings=2000)
    given = {"vocoder": str(tmp_path / f"{units[0]}-hifigan"), "vocabulary_size": 2000, "rate": 50.0}
    for good in (units[0], "mine", ""):
        load_synthesiser({**given, "units": where + good})
    with pytest.raises(UsageError, match=f"published for the units {units[0]}, and these are {units[1]}"):
        load_synthesiser({**given, "units": where + units[1]})


def test_griffin_lim_needs_log_mel_units(shelf):
    with pytest.raises(UsageError, match="phones is a codebook of HuBERT's features"):
        voice(shelf, vocoder="griffin-lim", codebook=str(shelf / "phones"))


@pytest.mark.parametrize("which", ["vocoder_digest", "codebook_digest"])
def test_a_model_that_was_replaced_since_the_run_began(shelf, which):
    name = "griffin-lim" if which == "codebook_digest" else str(shelf / "voice")
    with pytest.raises(UsageError, match="not the one that this run began with"):
        voice(shelf, vocoder=name, **{which: "0" * 64})


def test_a_voice_on_the_device_that_is_there(shelf, monkeypatch):
    monkeypatch.setenv("VOXARRAY_DEVICE", "cpu")
    made = synthesis.load({"vocoder": str(shelf / "voice"), "precision": "bf16", "speaker": None, "style": None})
    info = models.describe(str(shelf / "voice"), "hifigan")
    assert made.vocabulary_size == info.config["vocabulary_size"]
    exact, rough = voice(shelf).speak(units_of(20))[0], made.speak(units_of(20))[0]
    assert 0 < np.abs(exact - rough).max() < 0.2
    assert torch.get_num_threads() == 1
