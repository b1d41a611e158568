"""Word error rates: sums that hold, rows that cannot be counted said, and one row of a million like another."""

from __future__ import annotations

import json
import random
import sys

import pytest

pytest.importorskip("jiwer", reason="jiwer is not in this environment (it is in asr's)")
pytest.importorskip("whisper_normalizer", reason="whisper_normalizer is not in this environment (it is in asr's)")

from pipelines.asr import scoring, tally, wer
from pipelines.asr.scoring import compared, language_of, normaliser
from pipelines.asr.wer import main, measure
from pipelines.core.errors import EnvironmentNotFit, ManifestError, UsageError


def manifest(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def row(reference, text, duration=3.0, **fields):
    found = {"audio_filepath": f"/{abs(hash((reference, text)))}.wav", "duration": duration}
    if reference is not None:
        found["text_reference"] = reference
    if text is not None:
        found["text"] = text
    return {**found, **fields}


ROWS = [
    row("Hello, Dr. Smith!", "hello doctor smith", 1.5, speaker="a"),
    row("the cat sat on the mat", "the cat sat on mat", 4.0, speaker="a"),
    row("the cat sat on the mat", "a cat sat on the red mat", 4.0, speaker="b"),
    row("[noise]", "thank you", 0.5, speaker="b"),
    row("", "", 50.0, speaker="b"),
    row("two words", None, 2.0, speaker="a"),
    row(None, "nobody knows", 7.0),
]


def counted(counts):
    return counts.substitutions, counts.deletions, counts.insertions, counts.total


def test_raw_and_normalised(tmp_path):
    report = measure(manifest(tmp_path / "m.json", ROWS))
    assert counted(report.whole.normalised.words) == (1, 1, 3, 15)
    assert report.whole.normalised.words.rate == pytest.approx(100 * 5 / 15)
    assert counted(report.whole.raw.words) == (5, 1, 2, 16)
    assert report.whole.items == 5
    assert report.whole.seconds == 60.0
    assert report.columns == {"reference": "text_reference", "hypothesis": "text"}


def test_rows_that_cannot_be_counted_are_said(tmp_path):
    report = measure(manifest(tmp_path / "m.json", ROWS))
    assert (report.empty_references, report.inserted_there) == (2, 2)
    assert (report.without_reference, report.without_hypothesis, report.seconds_without) == (1, 1, 2.0)
    assert report.missed.deletions == 2
    assert report.rate_with_missed() == pytest.approx(100 * 7 / 17)
    said = wer.text_of(report)
    assert "2 items have a reference without words" in said
    assert "1 items (0.00 h) have no `text` and are not counted" in said
    assert "41.18 %" in said


def test_groups_add_up(tmp_path):
    report = measure(manifest(tmp_path / "m.json", ROWS), by=("speaker", "duration"))
    assert [group.value for group in report.by["duration"]] == ["0 to 1 s", "1 to 2 s", "2 to 5 s", "40 s and more"]
    assert {group.value: group.items for group in report.by["speaker"]} == {"a": 2, "b": 3}
    for groups in report.by.values():
        for kind in ("raw", "normalised"):
            for what in ("words", "characters"):
                parts = [counted(getattr(getattr(group, kind), what)) for group in groups]
                assert tuple(map(sum, zip(*parts))) == counted(getattr(getattr(report.whole, kind), what))


def test_the_worst_first(tmp_path):
    report = measure(manifest(tmp_path / "m.json", ROWS), worst=2)
    assert [(item.hypothesis, item.words.errors) for item in report.worst] == [
        ("a cat sat on the red mat", 2),
        ("thank you", 2),
    ]
    assert measure(tmp_path / "m.json", worst=0).worst == []


@pytest.mark.parametrize(
    ("rows", "options", "expected"),
    [
        ([{"text": "a", "pred_text": "b"}], (None, None), ("text", "pred_text")),
        ([{"text": "a", "reference": "b"}], (None, None), ("reference", "text")),
        ([{"text": "a", "said": "b"}], ("said", None), ("said", "text")),
        ([{"text": "a", "mine": "b"}], (None, "mine"), ("text", "mine")),
        ([{"x": "a", "y": "b", "text": "c"}], ("x", "y"), ("x", "y")),
        ([{"text_reference": "a"}, {"text": "b"}], (None, None), ("text_reference", "text")),
    ],
)
def test_which_fields_are_compared(tmp_path, rows, options, expected):
    report = measure(manifest(tmp_path / "m.json", rows), *options)
    assert tuple(report.columns.values()) == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--reference", "truth"],
            r"No row .* has the field 'truth' \(--reference\)\. They have audio_filepath; duration",
        ),
        (["--by", "city"], r"the field 'city' \(--by\)"),
        (["--reference", "text", "--hypothesis", "text"], "are both text"),
        ([], "Name both, for example"),
    ],
)
def test_fields_that_are_not_there(tmp_path, capsys, options, said):
    path = manifest(tmp_path / "m.json", [{"audio_filepath": "/a", "duration": 1, "text": "a"}])
    assert main([str(path), *options]) == 2
    assert __import__("re").search(said, capsys.readouterr().err)


def test_manifests_that_cannot_be_read(tmp_path):
    with pytest.raises(ManifestError, match="no manifest"):
        measure(tmp_path / "nothing.json")
    (tmp_path / "empty.json").write_text("\n\n")
    with pytest.raises(UsageError, match="empty"):
        measure(tmp_path / "empty.json")
    (tmp_path / "bad.json").write_text('{"text": "a", "text_reference": "b"}\n' * 2000 + "[1]\n")
    with pytest.raises(ManifestError, match="cannot be read"):
        measure(tmp_path / "bad.json")


def test_an_environment_without_jiwer(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(EnvironmentNotFit, match="voxarray env create asr"):
        measure(manifest(tmp_path / "m.json", ROWS))


def test_languages():
    assert [language_of({"lang": name}, "de") for name in ("en-US", "EN", "English", "zh_CN", "fr", "")] == [
        "en",
        "en",
        "en",
        "zh",
        "fr",
        "de",
    ]
    assert normaliser("en")("I'm Mr. Neil, twenty one") == "i am mister neil 21"
    assert normaliser("fr")("C'est l'été !").split() == ["c", "est", "l", "été"]
    words = compared(normaliser("zh")("今天天气好"), normaliser("zh")("今天天气很好")).words
    assert counted(words) == (0, 0, 1, 5)


def test_json_has_the_rates(tmp_path, capsys):
    path = manifest(tmp_path / "m.json", ROWS)
    assert main([str(path), "--json", "--by", "speaker"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["whole"]["normalised"]["wer"] == pytest.approx(33.3333, abs=1e-3)
    assert value["by"]["speaker"][0]["value"] == "a"
    assert value["by"]["duration"][-1]["normalised"]["wer"] is None
    assert value["worst"][0]["words"]["deletions"] == 0
    assert value["wer_with_missed"] == pytest.approx(41.1764, abs=1e-3)


def test_the_table(tmp_path, capsys):
    path = manifest(tmp_path / "m.json", ROWS)
    assert main([str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("5 items, 0.02 h; `text` against `text_reference`")
    assert lines[2].split() == ["WER", "%", "words", "sub", "del", "ins", "CER", "%"]
    assert lines[4].split()[:6] == ["normalised", "33.33", "15", "1", "1", "3"]
    assert any(line.startswith("by duration") for line in lines)


def test_no_words_no_rate(tmp_path, capsys):
    path = manifest(tmp_path / "m.json", [row("", "oh"), row("[beep]", "")])
    assert main([str(path)]) == 0
    out = capsys.readouterr().out
    assert "there is no rate" in out
    assert "1 words were recognised there" in out


def many(count):
    chance = random.Random(0)
    vocabulary = ["the", "a", "speech", "corpus", "of", "many", "hours", "twenty", "one", "Mr.", "isn't"]
    for number in range(count):
        said = chance.choices(vocabulary, k=8)
        heard = [word for word in said if chance.random() > 0.1]
        yield row(" ".join(said), " ".join(heard), chance.uniform(0, 50), speaker=f"s{number}", city=f"c{number % 7}")


def test_several_processes_find_what_one_finds(tmp_path):
    path = manifest(tmp_path / "m.json", many(1600))
    one, two = (measure(path, by=("city",), workers=workers).to_json() for workers in (1, 2))
    assert one == two


def test_memory_does_not_grow_with_the_rows(tmp_path, monkeypatch):
    import tracemalloc

    monkeypatch.setattr(tally, "MOST_GROUPS", 50)
    monkeypatch.setattr(wer.manifest, "BLOCK", 1 << 16)
    monkeypatch.setattr(scoring, "normaliser", lambda _: str.casefold)  # what it does takes long, and keeps nothing
    measure(manifest(tmp_path / "warm.json", many(10)))
    peaks = []
    for count in (1500, 6000):
        path = manifest(tmp_path / f"{count}.json", many(count))
        tracemalloc.start()
        report = measure(path, by=("speaker",), workers=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(report.by["speaker"]) == 51
        assert report.by["speaker"][-1].value == tally.OTHERS
        assert sum(group.items for group in report.by["speaker"]) == count
    assert peaks[1] < peaks[0] + 300_000


def test_a_reference_is_what_jiwer_says():
    import jiwer

    for each in many(50):
        found = compared(each["text_reference"], each["text"])
        assert found.words.rate == pytest.approx(100 * jiwer.wer(each["text_reference"], each["text"]))
        assert found.characters.rate == pytest.approx(100 * jiwer.cer(each["text_reference"], each["text"]))
    assert scoring.Counts().rate is None
