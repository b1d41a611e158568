"""What every recogniser promises, on real speech: a text is its own piece's alone, whatever it is heard beside."""

from __future__ import annotations

import random
import socket

import numpy as np
import pytest

from pipelines.asr import backends
from pipelines.core.errors import UsageError
from pipelines.core.pipeline import Resources
from tests import corpus
from tests.asr import models

pytestmark = pytest.mark.environment("asr")

KINDS = [kind for kind in models.KINDS if kind != "aed-aligned"]
TIMED = ["ctc", "rnnt", "tdt", "hybrid", "aed-aligned", "wav2vec2", "wav2vec2-layer", "hubert", "whisper"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Every model is loaded from its files alone."""

    def refuse(self, address):
        raise AssertionError(f"the network was asked for {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def source(kind):
    return str(models.salm_complete() if kind == "salm" else models.built(kind))


_LOADED = {}


def recogniser(kind, **settings):
    """The recogniser of a tiny model, loaded once."""
    key = kind, *sorted(settings.items())
    if key not in _LOADED:
        path = source(kind)
        _LOADED[key] = backends.load(backends.choose(path), path, settings, Resources(cpus=2))
    return _LOADED[key]


def waves(prompts):
    return [corpus.read_wave(prompt.path).astype(np.float32) / 32768 for prompt in prompts]


@pytest.fixture(scope="module")
def pieces():
    return waves(models.known())


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_text_for_batches_of_48_8_and_1(kind, pieces):
    one = recogniser(kind)
    # Whisper hears everything as 30 s
    pieces = pieces[:16] if kind == "whisper" else pieces
    whole = one.transcribe(pieces)
    assert len({each.text for each in whole}) > 12, "a model that says the same of everything would pass anything"
    order = random.Random(0).sample(range(len(pieces)), len(pieces))
    eights = {}
    for start in range(0, len(pieces), 8):
        places = order[start : start + 8]
        eights.update(zip(places, one.transcribe([pieces[place] for place in places])))
    assert [eights[place] for place in range(len(pieces))] == whole
    assert [one.transcribe([piece])[0] for piece in pieces[::4]] == whole[::4]


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_of_any_length(kind, pieces):
    one = recogniser(kind)
    silent = [np.zeros(0, np.float32), np.zeros(1, np.float32), np.ones(1, np.float32), pieces[0][:1000]]
    silent += [np.zeros(32000, np.float32)]
    assert [each.text for each in one.transcribe(silent)] == [""] * 5
    assert one.transcribe([]) == []
    short = [pieces[3][4000:5600], pieces[3][4000:6500], pieces[3][:12000]]
    assert one.transcribe([*short, *silent, pieces[5]])[:3] == [one.transcribe([piece])[0] for piece in short]


@pytest.mark.parametrize("kind", TIMED)
def test_words_have_times_within_their_piece(kind, pieces):
    one = recogniser(kind)
    assert one.has_words
    some = pieces[4:8]
    plain, timed = one.transcribe(some), one.transcribe(some, words=True)
    assert [each.text for each in plain] == [each.text for each in timed]
    assert all(each.words is None for each in plain)
    for piece, each in zip(some, timed):
        # Whisper's words begin at punctuation too, and a random one says little else
        assert "".join("".join(word.word for word in each.words).split()) == "".join(each.text.split())
        starts = [word.start for word in each.words]
        assert starts == sorted(starts)
        assert all(0 <= word.start <= word.end <= len(piece) / 16000 for word in each.words)
    assert one.transcribe(some[:2], words=True) == timed[:2]
    assert one.transcribe(some) == plain


@pytest.mark.parametrize("kind", ["ctc", "rnnt", "tdt", "hybrid", "aed", "wav2vec2"])
def test_trained_models_know_their_prompts(kind, pieces):
    from tests.asr.training import letters

    prompts = models.few(kind)
    found = recogniser(kind).transcribe(pieces[: len(prompts)])
    right = [letters(each.text) == letters(prompt.text) for each, prompt in zip(found, prompts)]
    assert sum(right) >= len(prompts) * 2 // 3, [each.text for each in found]


def test_trained_words_are_where_they_are_said(pieces):
    """Speech that comes later by some silence has its words later by as much.

    The tiny model was never shown silence: it says the first word there, and of most prompts something else.
    """
    one = recogniser("wav2vec2")
    compared = 0
    for later in (0.25, 0.5, 1.0):
        silence = np.zeros(round(later * 16000), np.float32)
        here = one.transcribe(pieces[:12], words=True)
        there = one.transcribe([np.concatenate([silence, piece]) for piece in pieces[:12]], words=True)
        for before, after in zip(here, there):
            if before.text == after.text:
                moved = [word.start - later for word in after.words[1:]]
                assert np.allclose([word.start for word in before.words[1:]], moved, atol=0.06)
                compared += len(moved)
    assert compared, "of no prompt is the text the same after silence: this compared nothing"


@pytest.mark.parametrize("kind", ["ctc", "rnnt", "tdt", "hybrid", "aed"])
def test_nemo_says_the_same_by_its_own_transcribe(kind, pieces):
    from nemo.collections.asr.models import ASRModel

    theirs = ASRModel.restore_from(source(kind), map_location="cpu").eval()
    files = [str(prompt.path) for prompt in models.known()]
    languages = {"source_lang": "en", "target_lang": "en"} if kind == "aed" else {}
    found = [each.text.strip() for each in theirs.transcribe(files, batch_size=8, verbose=False, **languages)]
    ours = recogniser(kind).transcribe(pieces)
    assert sum(bool(each.flagged) for each in ours) < 24
    for text, each in zip(found, ours):
        assert text == each.text or (each.flagged and text.startswith(each.text))


@pytest.mark.parametrize("kind", ["ctc", "tdt", "aed-aligned"])
def test_nemo_gives_the_same_times(kind, pieces):
    from nemo.collections.asr.models import ASRModel

    theirs = ASRModel.restore_from(source(kind), map_location="cpu").eval()
    files = [str(prompt.path) for prompt in models.known()[:8]]
    languages = {"source_lang": "en", "target_lang": "en"} if kind == "aed-aligned" else {}
    found = theirs.transcribe(files, batch_size=8, timestamps=True, verbose=False, **languages)
    for ours, each, piece in zip(recogniser(kind).transcribe(pieces[:8], words=True), found, pieces):
        if ours.flagged:
            continue
        # what NeMo says of a Canary's short recording counts the silence that it puts around it
        before = max(0, 16000 - len(piece)) // 2 / 16000 if kind == "aed-aligned" else 0
        stamps = [(word["word"], word["start"] - before) for word in each.timestamp["word"] if word["start"] >= 0]
        assert [word.word for word in ours.words] == [word for word, _ in stamps]
        starts = [min(max(start, 0), len(piece) / 16000) for _, start in stamps]
        assert np.allclose([word.start for word in ours.words], starts, atol=2e-3)


@pytest.mark.parametrize("kind", ["wav2vec2", "wav2vec2-layer", "hubert"])
def test_transformers_says_the_same_one_by_one(kind, pieces):
    import torch
    from transformers import AutoModelForCTC, AutoProcessor

    model = AutoModelForCTC.from_pretrained(source(kind)).eval()
    processor = AutoProcessor.from_pretrained(source(kind))
    ours = recogniser(kind).transcribe(pieces)
    for piece, each in zip(pieces[:12], ours):
        with torch.inference_mode():
            logits = model(processor(piece, sampling_rate=16000, return_tensors="pt").input_values).logits
        assert processor.batch_decode(logits.argmax(-1))[0].strip() == each.text


def test_batches_are_exact_where_transformers_own_are_not(pieces):
    """The reason for the masked normalisation: padded as transformers pads them, the logits differ."""
    import torch
    from transformers import AutoModelForCTC, AutoProcessor

    model = AutoModelForCTC.from_pretrained(source("hubert")).eval()
    processor = AutoProcessor.from_pretrained(source("hubert"))
    short = min(pieces, key=len)
    with torch.inference_mode():
        alone = model(processor(short, sampling_rate=16000, return_tensors="pt").input_values).logits[0]
        both = [short, max(pieces, key=len)]
        beside = model(processor(both, sampling_rate=16000, return_tensors="pt", padding=True).input_values).logits[0]
    assert (alone - beside[: len(alone)]).abs().max() > 1e-2
    ours = recogniser("hubert")
    assert ours.transcribe(both)[0] == ours.transcribe([short])[0]


def test_whisper_says_the_same_by_its_own_generate(pieces):
    from transformers import AutoProcessor, WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration.from_pretrained(source("whisper")).eval()
    processor = AutoProcessor.from_pretrained(source("whisper"))
    ours = recogniser("whisper").transcribe(pieces[:4])
    for piece, each in zip(pieces[:4], ours):
        features = processor(piece, sampling_rate=16000, return_tensors="pt").input_features
        ids = model.generate(features, task="transcribe", max_new_tokens=60)  # more than we allow a short piece
        theirs = processor.batch_decode(ids, skip_special_tokens=True)[0].strip()
        ours_whole = each.text.rstrip("\ufffd")  # where a text is ended, its last character may be half a one
        assert len(ours_whole) > 8
        assert theirs.startswith(ours_whole) if each.flagged else theirs == each.text


def test_settings(pieces):
    by_ctc = recogniser("hybrid", decoder="ctc").transcribe(pieces)
    assert by_ctc == recogniser("ctc").transcribe(pieces)
    assert by_ctc != recogniser("hybrid").transcribe(pieces)
    assert recogniser("ctc", precision="bf16").transcribe(pieces[:2])[0].text
    for kind, settings, said in [
        ("ctc", {"decoder": "rnnt"}, "only ctc"),
        ("whisper", {"language": "klingon"}, "does not know the language"),
        ("ctc", {"language": "de"}, "--language de means nothing"),
        ("wav2vec2", {"language": "de"}, "--language de means nothing"),
        ("aed", {"decoder": "ctc"}, "--decoder ctc means nothing"),
    ]:
        with pytest.raises(UsageError, match=said):
            recogniser(kind, **settings)
    assert recogniser("whisper", language="german").transcribe(pieces[:1])[0].text


def test_weights_that_are_missing_are_not_made_up(tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(source("hubert"), tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    save_file({name: each for name, each in weights.items() if "lm_head" not in name}, folder / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    with pytest.raises(UsageError, match=r"lacks lm_head\.bias, lm_head\.weight"):
        backends.load("transformers", str(folder), {}, Resources())
