"""`encode` over real speech: the same units however the work is cut, no recording lost, files looked after."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from pipelines.units.packed import PackedUnits
from tests import corpus
from tests.core.world import tree
from tests.units.stage import RATE, Stage, rows_of


@pytest.fixture(scope="module")
def stage():
    try:
        corpus.prompts("en")
    except corpus.Missing as reason:
        pytest.skip(str(reason))
    with Stage() as made:
        yield made


@pytest.fixture(scope="module")
def rows(stage):
    return stage.speech()


@pytest.fixture(scope="module")
def units(stage, rows):
    """The name of units whose codebook was fitted on a manifest of its own."""
    manifest = stage.write(rows, "fit.json")
    stage.fitted(manifest)
    return str(next((stage.home / "output" / "models").iterdir()))


def encode(stage, rows, name, *options):
    manifest = stage.write(rows, f"{name}.json")
    status, said = stage.give("encode", manifest, name, *options)
    assert status == 0, said
    return manifest, stage.home / "output" / name / "units"


def test_the_manifest_says_where_each_items_units_are(stage, rows, units):
    manifest, folder = encode(stage, rows, "plain", "--units", units)
    packed = PackedUnits(folder)
    found = rows_of(manifest)
    assert [row["audio_filepath"] for row in found] == [row["audio_filepath"] for row in rows]
    for row in found:
        assert row["units_filepath"] == str(folder)
        frames = packed.frames(row["units_row"])
        assert len(packed.units(row["units_row"])) == row["num_units"] < len(frames)
        assert len(frames) == (round(row["duration"] * RATE) - 400) // 320 + 1
        assert frames.max() < packed.description.vocabulary_size == 20
    assert manifest.with_name("plain.json.bak").exists(), "the user's own manifest is kept"
    assert rows_of(folder / "manifest.json") == found


@pytest.mark.parametrize("tasks", [1, 3, 8])
def test_the_same_bytes_however_the_work_is_cut(stage, rows, units, tasks):
    _, folder = encode(stage, rows, "plain", "--units", units)
    _, again = encode(stage, rows, f"cut{tasks}", "--units", units, "--tasks", tasks, "--cpus", 2)
    first, second = tree(folder), tree(again)
    for name in ("units-00000.npy", "durations-00000.npy", "index.npy"):
        assert first[name] == second[name]


def test_one_unit_a_frame_is_the_same_with_durations_spelled_out(stage, rows, units):
    _, folder = encode(stage, rows, "plain", "--units", units)
    _, raw = encode(stage, rows, "raw", "--units", units, "--no-deduplicate")
    packed, spelled = PackedUnits(folder), PackedUnits(raw)
    for row in range(len(packed)):
        assert (packed.frames(row) == spelled.units(row)).all()
    assert not list(raw.glob("durations-*"))


def test_formats_rates_and_channels_make_no_difference_but_a_little_rounding(stage, rows, units):
    samples, _ = soundfile.read(rows[0]["audio_filepath"], dtype="int16")
    made = [
        stage.recording("same/a.flac", samples),
        stage.recording("same/b.wav", np.stack([samples, samples], axis=1)),
        stage.recording("same/c.wav", np.repeat(samples, 3), rate=3 * RATE),
    ]
    _, folder = encode(stage, [rows[0], *made], "formats", "--units", units)
    packed = PackedUnits(folder)
    assert (packed.frames(1) == packed.frames(0)).all()
    assert (packed.frames(2) == packed.frames(0)).all()
    assert len(packed.frames(3)) == len(packed.frames(0))


def test_bad_recordings_are_named_and_cost_nothing_else(stage, rows, units):
    empty = stage.data / "bad" / "empty.wav"
    empty.parent.mkdir(parents=True, exist_ok=True)
    empty.touch()
    cut = stage.data / "bad" / "cut.flac"
    stage.recording("bad/cut.flac", corpus.read_wave(corpus.speech("en", 1)[0]))
    cut.write_bytes(cut.read_bytes()[:3000])
    bad = [{"audio_filepath": str(path), "duration": 1.0} for path in (empty, cut, stage.data / "bad" / "gone.wav")]
    manifest = stage.write([rows[0], *bad, rows[1]], "bad.json")
    status, said = stage.give("encode", manifest, "bad", "--units", units)
    assert status == 1
    assert "2 merged + 3 quarantined" in said
    found = rows_of(manifest)
    assert ["units_row" in row for row in found] == [True, False, False, False, True]
    assert found[4]["units_row"] == 1
    assert len(PackedUnits(stage.home / "output" / "bad" / "units")) == 2
    assert {row["audio_filepath"]: row for row in rows_of(manifest)}[bad[0]["audio_filepath"]] == bad[0]


def test_a_recording_that_fails_in_another_run_loses_the_units_of_the_first(stage, rows, units):
    """Among rows of the new codebook, its row would be taken for one of them."""
    gone = stage.recording("bad/soon_gone.wav", corpus.read_wave(corpus.speech("en", 1)[0]), text="kept")
    manifest, first = encode(stage, [rows[0], gone], "failing", "--units", units)
    (stage.data / "bad" / "soon_gone.wav").unlink()
    status, said = stage.give("encode", manifest, "failing2", "--units", units)
    assert status == 1, said
    assert "1 merged + 1 quarantined" in said
    good, bad = rows_of(manifest)
    assert good["units_filepath"] == str(stage.home / "output" / "failing2" / "units") != str(first)
    assert bad == gone


def test_samples_that_are_not_numbers_have_no_units(stage, rows, units):
    values = np.zeros(RATE, np.float32)
    values[RATE // 2] = np.nan
    path = stage.data / "bad" / "nan.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, values, RATE, "FLOAT")
    manifest = stage.write([rows[0], {"audio_filepath": str(path), "duration": 1.0}], "nan.json")
    status, said = stage.give("encode", manifest, "nan", "--units", units)
    assert status == 1, said
    assert "1 merged + 1 quarantined" in said


@pytest.mark.parametrize("samples", [1, 200, 399, 400, 719, 720])
def test_very_short_recordings_have_a_unit(stage, rows, units, samples):
    short = stage.recording(f"short/{samples}.wav", corpus.read_wave(corpus.speech("en", 1)[0])[2000 : 2000 + samples])
    _, folder = encode(stage, [short], f"short{samples}", "--units", units)
    assert len(PackedUnits(folder).frames(0)) == (2 if samples == 720 else 1)


def test_long_recordings_in_pieces_have_the_frames_of_the_whole(stage, units):
    """Log-mel frames see nothing beyond their window, so pieces must give exactly the frames of the whole."""
    speech = np.concatenate([corpus.read_wave(path) for path in corpus.speech("en", 40, longest=6.0)])
    long = np.tile(speech, 5)[: 230 * RATE + 123]
    row = stage.recording("long/hour.wav", long)
    _, folder = encode(stage, [row], "long", "--units", units)
    frames = PackedUnits(folder).frames(0)
    assert len(frames) == (len(long) - 400) // 320 + 1
    whole = _units(long, units)
    assert (frames == whole).all()
    _, textless = encode(stage, [row], "longtextless", "--units", units, "--chunking", "textless")
    assert len(PackedUnits(textless).frames(0)) == len(frames) - 2, "a frame is lost at each of two cuts"


def _units(samples, codebook):
    from pipelines.units import models
    from pipelines.units.codebook import Codebook
    from pipelines.units.logmel import LogMel

    features = LogMel()(torch.from_numpy(samples.astype(np.float32) / 32768)[None])[0]
    return Codebook.load(models.describe(codebook, "codebook")).assign(features).numpy()


def test_stretches_of_a_recording_are_items_of_their_own(stage, rows, units):
    path = rows[0]["audio_filepath"]
    whole, _ = soundfile.read(path, dtype="int16")
    stretch = {"audio_filepath": path, "offset": 0.25, "duration": 0.5}
    cut = stage.recording("cut/stretch.wav", whole[4000:12000])
    _, folder = encode(stage, [rows[0], stretch, cut], "stretches", "--units", units)
    packed = PackedUnits(folder)
    assert (packed.frames(1) == packed.frames(2)).all()
    beyond = stage.write([{**stretch, "offset": 100.0}], "beyond.json")
    status, said = stage.give("encode", beyond, "beyond", "--units", units)
    assert status == 1, said


def test_a_tensor_a_recording_as_the_seed_has_them(stage, rows, units):
    manifest = stage.write(rows, "pt.json")
    status, said = stage.give("encode", manifest, "corpus", "--units", units, "--format", "pt")
    assert status == 0, said
    _, folder = encode(stage, rows, "plain", "--units", units)
    packed, found = PackedUnits(folder), rows_of(manifest)
    for number, row in enumerate(found):
        tensor = torch.load(row["units_filepath"], weights_only=True)
        assert (tensor.dtype, tensor.dim()) == (torch.int32, 1)
        assert tensor.tolist() == packed.units(number).tolist()
    assert found[0]["units_filepath"] == str(stage.home / "output" / "corpus" / "s0" / "000.pt")
    # what is gone or cut is done again, and no more
    first, second = (stage.home / "output" / "corpus" / name for name in ("s0/000.pt", "s1/001.pt"))
    kept = second.stat().st_mtime_ns
    before = first.read_bytes()
    first.write_bytes(before[:100])
    status, said = stage.give("encode", manifest, "corpus", "--units", units, "--format", "pt")
    assert status == 0, said
    assert "1 items to do" in said
    assert first.read_bytes() == before
    assert second.stat().st_mtime_ns == kept


def test_units_of_two_kinds_do_not_mix(stage, rows, units):
    encode(stage, rows, "mixed", "--units", units)
    manifest = stage.root / "mixed.json"
    status, said = stage.give("encode", manifest, "mixed", "--units", units, "--no-deduplicate")
    assert status == 2
    assert "holds units made with other settings (deduplicate True, now False)" in said
    other = stage.write(rows[:2], "other.json")
    status, said = stage.give("encode", other, "mixed", "--units", units)
    assert status == 2
    assert "manifest" in said


def test_a_codebook_that_is_not_there_is_fitted_by_a_command_that_is_named(stage, rows):
    manifest = stage.write(rows, "unfitted.json")
    status, said = stage.give("encode", manifest, "unfitted", "--units", "logmel-kmeans-7")
    assert status == 2
    assert "./voxarray kmeans" in said
    assert "sbatch --array=0-3 slurm/kmeans.slurm" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--units", "nothing-like-it"], "This model is not there"),
        (["--units", "logmel-kmeans-1"], "2 to 65,536"),
        (["--units", "a", "--dense-model", "b"], "not both"),
        (["--dense-model", "hubert-base-ls960"], "belong together"),
        (["--dense-model", "hubert-base-ls960", "--vocab-size", "200"], "hubert-base-ls960-kmeans-200"),
        (["--units", "/nowhere/at/all"], "there is no such folder"),
        (["--units", "logmel-kmeans-20", "--root", "/nowhere"], "not a folder"),
    ],
)
def test_wrong_options_are_answered_in_a_paragraph(stage, rows, options, message):
    manifest = stage.write(rows, "options.json")
    status, said = stage.give("encode", manifest, "corpus", *options, "--format", "pt")
    assert status == 2
    assert message in said
    assert "Traceback" not in said


def test_a_codebook_that_changes_is_another_run(stage, rows, units, tmp_path):
    import json
    import shutil

    folder = tmp_path / "codebook"
    shutil.copytree(units, folder)
    manifest = stage.write(rows, "changing.json")
    status, said = stage.give("encode", manifest, "changing", "--units", folder, "--limit", 4, "--no-merge")
    assert status == 0, said
    description = json.loads((folder / "model.json").read_text())
    description["digest"] = "f" * 64
    (folder / "model.json").write_text(json.dumps(description))
    status, said = stage.give("encode", manifest, "changing", "--units", folder)
    assert status == 2
    assert "the models were fitted or imported anew since" in said


def test_what_encode_adds_to_the_manifest_of_vad_outlives_another_vad(stage, rows, units):
    stem = stage.root / "listed"
    assert stage.give("vad", stage.data / "s0", stem)[0] == 0
    manifest = stem.with_suffix(".json")
    assert stage.give("encode", manifest, "listed", "--units", units)[0] == 0
    encoded = manifest.read_bytes()
    assert b"units_row" in encoded
    assert stage.give("vad", stage.data / "s0", stem)[0] == 0
    assert stage.give("encode", manifest, "listed", "--units", units)[0] == 0
    assert manifest.read_bytes() == encoded
    assert len(list(stage.root.glob("listed.json.bak*"))) == 1
