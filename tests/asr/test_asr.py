"""`asr` through the engine on real speech: texts, long recordings, bad ones, resuming, however work is cut."""

from __future__ import annotations

import difflib
import json

import numpy as np
import pytest

from tests import corpus
from tests.asr import models
from tests.units.stage import RATE, Stage, rows_of

pytestmark = pytest.mark.environment("asr")


@pytest.fixture(scope="module")
def model():
    try:
        return str(models.built("ctc"))
    except corpus.Missing as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def stage():
    with Stage() as made:
        yield made


@pytest.fixture(scope="module")
def known():
    """Prompts that the model knows by heart."""
    return models.few("ctc")[:12]


@pytest.fixture(scope="module")
def rows(stage, known):
    return [
        stage.recording(f"p/{number:02d}.wav", corpus.read_wave(prompt.path)) for number, prompt in enumerate(known)
    ]


def transcribe(stage, rows, name, *options, status=0):
    manifest = stage.write(rows, f"{name}.json")
    found, said = stage.give("asr", manifest, *options)
    assert found == status, said
    return manifest, said


def alike(one, other):
    """How much of two texts is the same, 0 to 1: tiny models know their prompts, but not every cut of them."""
    return difflib.SequenceMatcher(None, one.lower(), other.lower(), autojunk=False).ratio()


def texts(manifest, field="text"):
    return [row.get(field) for row in rows_of(manifest)]


def test_the_manifest_gets_the_texts(stage, rows, known, model):
    manifest, _ = transcribe(stage, rows, "plain", "--model", model)
    found = rows_of(manifest)
    right = sum(row["text"].lower() == prompt.text.lower() for row, prompt in zip(found, known))
    assert right >= 0.6 * len(known), "the model knows most of these by heart"
    assert all("segments" not in row and "words" not in row for row in found)
    assert manifest.with_name("plain.json.bak").exists()


@pytest.mark.parametrize("tasks", [2, 5])
def test_the_same_bytes_however_the_work_is_cut(stage, rows, model, tasks):
    one, _ = transcribe(stage, rows, "one", "--model", model)
    other, _ = transcribe(stage, rows, f"other{tasks}", "--model", model, "--tasks", tasks)
    assert one.read_bytes() == other.read_bytes()


def test_rows_that_have_a_text_keep_it_unless_asked(stage, rows, known, model):
    given = [{**row, "text": "as it was"} if number % 2 else row for number, row in enumerate(rows)]
    manifest, _ = transcribe(stage, given, "kept", "--model", model)
    assert texts(manifest)[1::2] == ["as it was"] * 6
    plain, _ = transcribe(stage, rows, "again", "--model", model)
    assert texts(manifest)[::2] == texts(plain)[::2]
    redone, _ = transcribe(stage, given, "redone", "--model", model, "--redo")
    assert texts(redone) == texts(plain)


def test_another_field_leaves_the_reference_alone(stage, rows, known, model):
    given = [{**row, "text": prompt.text} for row, prompt in zip(rows, known)]
    manifest, _ = transcribe(stage, given, "scored", "--model", model, "--field", "pred_text")
    assert texts(manifest) == [prompt.text for prompt in known]
    assert all(isinstance(text, str) for text in texts(manifest, "pred_text"))
    from pipelines.asr import wer

    assert wer.main([str(manifest)]) == 0


def test_silence_has_no_text_and_is_not_done_again(stage, rows, model):
    silence = [
        stage.recording("quiet/zeros.wav", np.zeros(3 * RATE, np.int16)),
        stage.recording("quiet/hiss.wav", np.random.default_rng(0).integers(-8, 8, 3 * RATE).astype(np.int16)),
        stage.recording("quiet/short.wav", np.zeros(10, np.int16)),
    ]
    manifest, _ = transcribe(stage, [*silence, rows[0]], "silence", "--model", model)
    assert texts(manifest)[:3] == ["", "", ""]
    assert texts(manifest)[3]
    before = manifest.read_bytes()
    status, said = stage.give("asr", manifest, "--model", model)
    assert status == 0
    assert "accounted for already" in said
    assert manifest.read_bytes() == before


def test_long_recordings_are_cut_at_pauses_and_put_together_in_order(stage, known, model):
    """Known prompts with pauses between them, 3 minutes: each is found where it lies."""
    parts, bounds, at = [], [], 0
    for turn in range(8):
        for prompt in known:
            speech = corpus.read_wave(prompt.path)
            bounds.append((at / RATE, (at + len(speech)) / RATE, prompt.text.lower()))
            pause = np.zeros(int((2.6 + 0.1 * (turn % 3)) * RATE), np.int16)
            parts += [speech, pause]
            at += len(speech) + len(pause)
    row = stage.recording("long/all.wav", np.concatenate(parts))
    manifest, _ = transcribe(stage, [row], "long", "--model", model, "--longest", "20", "--words")
    (found,) = rows_of(manifest)
    segments = found["segments"]
    assert found["text"] == " ".join(segment["text"] for segment in segments)
    assert all(0 < segment["end"] - segment["start"] <= 20.001 for segment in segments)
    assert all(one["end"] <= other["start"] + 1e-6 for one, other in zip(segments, segments[1:]))
    for start, end, text in bounds:
        near = [each for each in segments if each["start"] < end and each["end"] > start]
        assert near, f"{text} lies in no segment"
    samples = np.concatenate(parts)
    cut = [(round(segment["start"] * RATE), round(segment["end"] * RATE)) for segment in segments]
    pieces = [stage.recording(f"long/{first}.wav", samples[first:after]) for first, after in cut]
    alone, _ = transcribe(stage, pieces, "pieces", "--model", model, "--vad", "never")
    assert [segment["text"] for segment in segments] == texts(alone)
    words = found["words"]
    assert "".join(word["word"] for word in words) == found["text"].replace(" ", "")
    assert all(one["start"] <= other["start"] for one, other in zip(words, words[1:]))
    assert words[-1]["end"] <= row["duration"]
    spoken = [any(start - 0.4 <= word["start"] <= end + 0.4 for start, end, _ in bounds) for word in words]
    assert np.mean(spoken) > 0.95


def test_segments_of_vad_may_be_given(stage, known, model):
    speech = corpus.read_wave(known[0].path)
    other = corpus.read_wave(known[1].path)
    gap = np.zeros(3 * RATE, np.int16)
    row = stage.recording("given/two.wav", np.concatenate([speech, gap, other]))
    second = (len(speech) + len(gap)) / RATE
    segments = stage.write(
        [{"audio_filepath": row["audio_filepath"], "offset": second, "duration": len(other) / RATE}], "segments.json"
    )
    options = ["--model", model, "--vad", "always", "--vad-segments", segments, "--segments"]
    manifest, _ = transcribe(stage, [row], "given", *options)
    (found,) = rows_of(manifest)
    margin = np.zeros(round(0.2 * RATE), np.int16)
    same = stage.recording("given/one.wav", np.concatenate([margin, other]))
    alone, _ = transcribe(stage, [same], "alone", "--model", model, "--vad", "never")
    assert [found["text"]] == texts(alone)
    (segment,) = found["segments"]
    assert segment["start"] == pytest.approx(second - 0.2, abs=0.01)


def test_formats_rates_and_channels(stage, rows, known, model):
    samples = corpus.read_wave(known[0].path)
    made = [
        stage.recording("kinds/a.flac", samples),
        stage.recording("kinds/b.wav", np.stack([samples, samples], axis=1)),
        stage.recording("kinds/c.wav", np.repeat(samples, 3), rate=3 * RATE),
    ]
    manifest, _ = transcribe(stage, [rows[0], *made], "kinds", "--model", model)
    assert len(set(texts(manifest)[:3])) == 1


def test_bad_recordings_are_named_and_cost_nothing_else(stage, rows, model):
    empty, text = stage.data / "bad.wav", stage.data / "text.wav"
    empty.touch()
    text.write_text("no audio")
    bad = [{"audio_filepath": str(path), "duration": 1.0} for path in (empty, text, stage.data / "gone.wav")]
    manifest, said = transcribe(stage, [rows[0], *bad, rows[1]], "bad", "--model", model, status=1)
    assert "2 merged + 3 quarantined" in said
    assert [row is not None for row in texts(manifest)] == [True, False, False, False, True]


def test_stretches_of_recordings(stage, rows, known, model):
    speech = [corpus.read_wave(prompt.path) for prompt in known[:2]]
    whole = stage.recording("stretch/both.wav", np.concatenate(speech))
    first = len(speech[0]) / RATE
    items = [
        {"audio_filepath": whole["audio_filepath"], "offset": 0.0, "duration": first},
        {"audio_filepath": whole["audio_filepath"], "offset": first, "duration": len(speech[1]) / RATE},
    ]
    manifest, _ = transcribe(stage, [*items], "stretch", "--model", model)
    plain, _ = transcribe(stage, rows[:2], "wholes", "--model", model)
    assert texts(manifest) == texts(plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "nvidia/canary-qwen-2.5b"], "canary-qwen-2.5b"),
        (["--model", "no such thing"], "There is no model"),
        (["--vad-segments", "/nowhere.json"], "no file here"),
        (["--longest", "0.1"], "from 1 to 86,400"),
        (["--field", "duration"], "none that has a meaning"),
    ],
)
def test_wrong_options_are_answered_in_a_paragraph(stage, rows, options, message, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(stage.root / "no-hub"))
    status, said = stage.give("asr", stage.write(rows, "options.json"), *options)
    assert status == 2
    assert message in said
    assert "Traceback" not in said


def test_without_a_gpu_or_a_name_pocketsphinx_says_what_it_is(stage, rows, known, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    manifest, said = transcribe(stage, rows[:4], "sphinx", "--words")
    assert "about every third word is wrong" in said
    found = rows_of(manifest)
    assert any(row["text"] for row in found)
    assert json.dumps(found[0]["words"])


def test_the_class_of_canary_qwen_through_the_pipeline(stage, rows, known):
    try:
        salm = str(models.salm_complete())
    except corpus.Missing as reason:
        pytest.skip(str(reason))
    chosen = models.known()[:8]
    given = [
        stage.recording(f"salm/{number}.wav", corpus.read_wave(prompt.path)) for number, prompt in enumerate(chosen)
    ]
    manifest, _ = transcribe(stage, given, "salm", "--model", salm)
    other, _ = transcribe(stage, given, "salm3", "--model", salm, "--tasks", 3)
    assert manifest.read_bytes() == other.read_bytes()
    assert np.mean([alike(text, prompt.text) for text, prompt in zip(texts(manifest), chosen)]) > 0.5
