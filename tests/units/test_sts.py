"""`sts` over real speech: a file for every recording, of its length, the same however the work is cut, verified."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests import corpus
from tests.core.world import tree
from tests.units import voices
from tests.units.stage import RATE, Stage, rows_of, samples_of


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
    return stage.speech(6)


@pytest.fixture(scope="module")
def units(stage, rows):
    manifest = stage.write(rows, "fit.json")
    stage.fitted(manifest)
    return str(next((stage.home / "output" / "models").iterdir()))


def speak(stage, manifest, name, *options, root=True):
    where = ["--root", stage.data] if root else []
    status, said = stage.give("sts", manifest, name, *where, *options)
    assert status == 0, said
    return stage.home / "output" / name


def test_every_recording_is_said_again_in_its_own_place_and_length(stage, rows, units):
    manifest = stage.write(rows, "first.json")
    before = manifest.read_bytes()
    folder = speak(stage, manifest, "corpus", "--units", units, root=False)
    assert manifest.read_bytes() == before, "the manifest of the recordings is left alone"
    found = rows_of(folder / "first.json")
    for row, made in zip(rows, found):
        path = folder / row["audio_filepath"].split("/corpus/", 1)[1]
        assert made["audio_filepath"] == str(path)
        assert made["source_audio_filepath"] == row["audio_filepath"]
        speech = samples_of(path)
        assert len(speech) == len(samples_of(row["audio_filepath"]))
        assert made["duration"] == pytest.approx(row["duration"])
        assert np.abs(speech.astype(float)).mean() > 50, "it is not silent"


@pytest.mark.parametrize("tasks", [2, 6])
def test_the_same_bytes_however_the_work_is_cut(stage, rows, units, tasks):
    manifest = stage.write(rows, "cut.json")
    one = speak(stage, manifest, "one", "--units", units)
    other = speak(stage, manifest, f"other{tasks}", "--units", units, "--tasks", tasks, "--cpus", 2)
    first, second = tree(one), tree(other)
    assert {name: data for name, data in first.items() if name.endswith(".wav")} == {
        name: data for name, data in second.items() if name.endswith(".wav")
    }


def test_units_of_a_manifest_are_spoken_as_from_audio(stage, rows, units):
    manifest = stage.write(rows, "spoken.json")
    direct = speak(stage, manifest, "direct", "--units", units)
    for name, options in {"packed": [], "frames": ["--no-deduplicate"], "files": ["--format", "pt"]}.items():
        status, said = stage.give("encode", manifest, f"from{name}", "--units", units, "--root", stage.data, *options)
        assert status == 0, said
        asked = ["--units", units] if name == "files" else []
        made = speak(stage, manifest, f"said{name}", "--from", "units", *asked)
        for wave in direct.rglob("*.wav"):
            same = wave.read_bytes() == (made / wave.relative_to(direct)).read_bytes()
            assert same == (name != "files"), "files of units that are deduplicated have lost the timing"


def test_packed_units_of_another_codebook_are_not_spoken(stage, rows, units):
    manifest = stage.write(rows[:3], "others.json")
    assert stage.give("encode", manifest, "others", "--units", units)[0] == 0
    book = "logmel-kmeans-20.other"
    assert stage.give("kmeans", manifest, book, "--clusters", 20)[0] == 0
    asked = ("sts", manifest, "others", "--from", "units", "--root", stage.data)
    status, said = stage.give(*asked, "--units", book)
    assert status == 1, said
    assert "0 merged + 3 quarantined" in said
    assert "and not of logmel-kmeans-20.other" in said
    assert not list((stage.home / "output" / "others").rglob("*.wav"))


def test_units_as_text_are_spoken(stage, units):
    rows = [
        {"audio_filepath": str(stage.data / "sample0"), "duration": 0.06, "units": "3 3 7"},
        {"audio_filepath": str(stage.data / "sample1"), "duration": 0.04, "units": [3, 7], "durations": [4, 1]},
        {"audio_filepath": str(stage.data / "sample2"), "duration": 0.04, "units": "3 99"},
    ]
    manifest = stage.write(rows, "text.json")
    status, said = stage.give("sts", manifest, "text", "--from", "units", "--units", units, "--root", stage.data)
    assert status == 1
    assert "2 merged + 1 quarantined" in said
    folder = stage.home / "output" / "text"
    assert len(samples_of(folder / "sample0.wav")) == 960
    assert len(samples_of(folder / "sample1.wav")) == 1600
    assert not (folder / "sample2.wav").exists()
    status, said = stage.give("sts", manifest, "text2", "--from", "units", "--root", stage.data)
    assert status == 2
    assert "Say it with --units NAME" in said
    status, said = stage.give("sts", manifest, "text3", "--from", "units", "--units", "logmel-kmeans-10")
    assert status == 2
    assert "logmel-kmeans-10.STEM-DIGEST" in said
    assert "voxarray kmeans" not in said


def test_the_units_are_known_though_the_first_recording_failed(stage, rows, units):
    manifest = stage.write([{"audio_filepath": str(stage.data / "gone.wav"), "duration": 1.0}, *rows[:1]], "hole.json")
    status, said = stage.give("encode", manifest, "hole", "--units", units, "--root", stage.data)
    assert status == 1, said
    status, said = stage.give("sts", manifest, "holesaid", "--from", "units", "--root", stage.data)
    assert status == 1
    assert "1 merged + 1 quarantined" in said


def test_files_that_vanish_or_are_cut_are_said_again_and_no_others(stage, rows, units):
    manifest = stage.write(rows, "again.json")
    folder = speak(stage, manifest, "again", "--units", units)
    waves = sorted(folder.rglob("*.wav"))
    before = {wave: (wave.read_bytes(), wave.stat().st_mtime_ns) for wave in waves}
    waves[1].unlink()
    waves[3].write_bytes(before[waves[3]][0][:1000])
    status, said = stage.give("sts", manifest, "again", "--units", units, "--root", stage.data)
    assert status == 0, said
    assert "2 items to do" in said
    for number, wave in enumerate(waves):
        assert wave.read_bytes() == before[wave][0]
        assert (wave.stat().st_mtime_ns == before[wave][1]) == (number not in (1, 3))


def test_flac_and_stretches(stage, rows, units):
    path = rows[0]["audio_filepath"]
    stretches = [{"audio_filepath": path, "offset": start, "duration": 0.3, "text": "word"} for start in (0.0, 0.25)]
    folder = speak(stage, stage.write(stretches, "stretches.json"), "flac", "--units", units, "--audio-format", "flac")
    found = rows_of(folder / "stretches.json")
    assert [row["source_offset"] for row in found] == [0.0, 0.25]
    assert all(row["text"] == "word" and "offset" not in row for row in found)
    for row in found:
        assert row["audio_filepath"].endswith(("_0.000-0.300.flac", "_0.250-0.550.flac"))
        samples, rate = soundfile.read(row["audio_filepath"])
        assert (len(samples), rate) == (round(0.3 * RATE), RATE)


def test_deduplicated_speech_has_lost_its_timing(stage, rows, units):
    folder = speak(stage, stage.write(rows[:2], "short.json"), "short", "--units", units, "--deduplicate")
    for row in rows_of(folder / "short.json"):
        assert row["duration"] < soundfile.info(row["source_audio_filepath"]).duration


@pytest.mark.parametrize("length", [1, 200, 400])
def test_very_short_recordings_keep_their_length(stage, units, length):
    row = stage.recording(f"tiny/{length}.wav", (1000 * np.sin(np.arange(length))).astype(np.int16))
    folder = speak(stage, stage.write([row], f"tiny{length}.json"), f"tiny{length}", "--units", units)
    assert len(samples_of(folder / f"tiny/{length}.wav")) == length


def test_the_datasets_name_has_to_be_in_the_paths_or_a_root_be_named(stage, rows, units):
    manifest = stage.write(rows, "elsewhere.json")
    status, said = stage.give("sts", manifest, "elsewhere", "--units", units)
    assert status == 2
    assert "no folder in its path is named 'elsewhere'" in said
    assert "--root" in said
    assert rows[0]["audio_filepath"] in said


def test_speech_of_two_kinds_does_not_mix(stage, rows, units):
    manifest = stage.write(rows, "mixed.json")
    speak(stage, manifest, "mixed", "--units", units)
    status, said = stage.give("sts", manifest, "mixed", "--units", units, "--root", stage.data, "--deduplicate")
    assert status == 2
    assert "holds speech made with other settings (deduplicate False, now True)" in said
    other = stage.write(rows[:1], "dev.json")
    speak(stage, other, "mixed", "--units", units)


@pytest.mark.parametrize("made", ["sts", "encode"])
def test_recordings_of_another_folder_do_not_replace_what_is_there(stage, rows, units, made):
    options = ["--units", units, *(["--format", "pt"] if made == "encode" else [])]
    samples = samples_of(rows[0]["audio_filepath"])
    manifests = {}
    for top in ("this", "that"):
        folder = stage.root / top / f"tops{made}"
        folder.mkdir(parents=True)
        soundfile.write(folder / "0.wav", samples if top == "this" else samples[::-1], RATE, "PCM_16")
        row = {"audio_filepath": str(folder / "0.wav"), "duration": len(samples) / RATE}
        manifests[top] = stage.write([row], f"{top}{made}.json")
    assert stage.give(made, manifests["this"], f"tops{made}", *options)[0] == 0
    before = tree(stage.home / "output" / f"tops{made}")
    status, said = stage.give(made, manifests["that"], f"tops{made}", *options)
    assert status == 2
    assert f"of the recordings below {stage.root / 'this'}" in said
    assert tree(stage.home / "output" / f"tops{made}") == before
    for root in ([], ["--root", stage.root / "this" / f"tops{made}"]):
        assert stage.give(made, manifests["this"], f"tops{made}", *options, *root)[0] == 0


def test_a_recording_in_the_output_folder_is_never_written_over(stage, rows, units):
    folder = stage.home / "output" / "inside"
    folder.mkdir()
    samples = samples_of(rows[0]["audio_filepath"])
    soundfile.write(folder / "0.wav", samples, RATE, "PCM_16")
    before = tree(folder)
    own = {"audio_filepath": str(folder / "0.wav"), "duration": len(samples) / RATE}
    alias = {**own, "audio_filepath": str(stage.root / "alias" / "0.wav")}
    (stage.root / "alias").symlink_to(folder)
    elsewhere = stage.recording("inside/0.wav", samples[::-1])
    for number, row in enumerate((own, alias, elsewhere)):
        root = ["--root", str(Path(row["audio_filepath"]).parent)]
        status, said = stage.give("sts", stage.write([row], f"in{number}.json"), "inside", "--units", units, *root)
        assert status == 2
        assert "is a recording, and recordings are never written over" in said
        assert tree(folder) == before
    spoken = speak(stage, stage.write(rows[:1], "outside.json"), "outside", "--units", units)
    before = tree(spoken)
    status, said = stage.give("sts", spoken / "outside.json", "outside", "--units", units)
    assert status == 2
    assert tree(spoken) == before


def test_samples_are_spoken_into_the_files_that_their_rows_name(stage, units):
    folder = stage.home / "output" / "samples"
    rows = [{"audio_filepath": str(folder / f"{number}.wav"), "duration": 0.06, "units": "3 3 7"} for number in "01"]
    for count in (1, 2):  # a manifest that grew is scanned anew, and by then there are files of the first rows
        manifest = stage.write(rows[:count], "samples.json")
        speak(stage, manifest, "samples", "--from", "units", "--units", units, root=False)
        assert len(list(folder.glob("*.wav"))) == count
    speak(stage, manifest, "samples", "--from", "units", "--units", units, "--fresh", root=False)


def test_a_long_name_is_written_and_one_that_is_too_long_is_refused_before_anything_starts(stage, rows, units):
    samples = samples_of(rows[0]["audio_filepath"])[:4000]
    long = [stage.recording(f"long/{letter * length}.wav", samples) for letter, length in (("a", 244), ("b", 1))]
    folder = speak(stage, stage.write(long, "long.json"), "long", "--units", units)
    assert len(list(folder.rglob("*.wav"))) == 2
    manifest = stage.write([{**row, "offset": 0.0} for row in long], "longer.json")
    status, said = stage.give("sts", manifest, "longer", "--units", units, "--root", stage.data)
    assert status == 2
    assert "would have 260 bytes, and file systems take 255" in said


def test_two_recordings_of_one_name_are_refused(stage, rows, units):
    samples = samples_of(rows[0]["audio_filepath"])
    both = [stage.recording(f"twin/a.{suffix}", samples) for suffix in ("wav", "flac")]
    status, said = stage.give("sts", stage.write(both, "twins.json"), "corpus", "--units", units)
    assert status == 2
    assert "would be written to one and the same file" in said


def test_units_without_a_published_voice_need_one_named(stage, rows, units):
    models = stage.home / "output" / "models"
    made_of = {"kind": "hubert", "model": "small", "layer": 1}
    voices.folder(models, "small", "hubert", {"layers": 2, "width": 4, "hop": 320}, {"x": [0.0]})
    voices.folder(models, "mine", "codebook", {"clusters": 5, "width": 4, "features": made_of}, {"x": [0.0]})
    status, said = stage.give("sts", stage.write(rows[:1], "mine.json"), "corpus", "--units", "mine")
    assert status == 2
    assert "mine are units without a published voice" in said
    assert "--vocoder NAME" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--speaker", "ex01"], "griffin-lim has none"),
        (["--vocoder", "no-such-voice"], "This model is not there"),
        (["--audio-format", "mp3"], "invalid choice"),
    ],
)
def test_wrong_options_are_answered_in_a_paragraph(stage, rows, units, options, message):
    manifest = stage.write(rows, "options.json")
    status, said = stage.give("sts", manifest, "corpus", "--units", units, *options)
    assert status == 2
    assert message in said
    assert "Traceback" not in said
