"""Word error rates in a report: shown where there are references, and never in the report's way."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

import msgspec
import pytest
from made_runs import Made, Maker, make
from test_report import read

from pipelines.core import merge, store
from pipelines.core.pipeline import OutputFile
from pipelines.core.run import Run
from slurm import environments
from slurm.view import report_wer

has_jiwer = pytest.mark.skipif(
    importlib.util.find_spec("jiwer") is None, reason="jiwer is not in this environment (it is in asr's)"
)
SAID = "the <b>cat</b> sat on the mat"


def run_of_transcripts(moment, rows=None, **fields) -> Maker:
    """A merged run of asr whose manifest holds `fields` in every row, or `rows`."""
    made = Made(items=12, tasks=2, pipeline="asr", result=lambda *_: {"text": "x"})
    maker = make(made, moment)
    path = maker.folder / "listing.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()]
    found = [{**row, **fields, **(rows[number] if rows else {})} for number, row in enumerate(found)]
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    receipt = merge.last_receipt(Run.open(made.run_id()))
    output = OutputFile(str(path), "ab" * 32, path.stat().st_size, made.items)
    store.write_json(maker.folder / "merged.json", msgspec.structs.replace(receipt, outputs=[output]))
    return maker


def parameters(maker: Maker, **changed) -> None:
    path = maker.folder / "run.json"
    plan = json.loads(path.read_text())
    plan["parameters"] = {**plan["parameters"], **changed}
    path.write_text(json.dumps(plan))


@pytest.fixture
def ready(monkeypatch):
    """The environment of the transcripts is this one."""
    monkeypatch.setattr(environments, "is_ready", lambda name: name == "asr")
    monkeypatch.setattr(environments, "python", lambda _: Path(sys.executable))


def scores(**changed) -> dict:
    counts = {"hits": 8, "substitutions": 1, "deletions": 1, "insertions": 2}
    pair = {"words": counts, "characters": counts}
    group = {"value": "all", "items": 3, "seconds": 7200.0, "raw": pair, "normalised": pair}
    worst = {"audio_filepath": "/a<b>.wav", "duration": 3.25, "reference": SAID, "hypothesis": "<script>x</script>"}
    return {
        "manifest": "/m.json",
        "columns": {"reference": "text_reference", "hypothesis": "text"},
        "whole": group,
        "by": {"duration": [{**group, "value": "2 to 5 s"}], "<speaker>": [{**group, "value": "<i>"}] * 25},
        "worst": [{**worst, "words": counts}],
        "without_hypothesis": 2,
        "wer_with_missed": 44.444,
        **changed,
    }


@has_jiwer
def test_rates_are_counted_once_for_a_merge(moment, ready, monkeypatch):
    rows = [{"text": "the cat sat on the mat" if number else "The CAT sat on a red mat!"} for number in range(12)]
    maker = run_of_transcripts(moment, rows, text_reference=SAID.replace("<b>", "").replace("</b>", ""))
    source, reader = read(maker)
    assert "Word error rate 2.78\u00a0%" in reader.headings  # one substituted and one inserted in 72 words
    assert "By duration, normalised" in reader.headings
    assert "Most errors" in reader.headings
    assert "The CAT sat on a red mat!" in reader.text
    found = json.loads((maker.folder / "wer.json").read_text())
    assert found["whole"]["normalised"]["words"]["substitutions"] == 1
    monkeypatch.setattr(environments, "is_ready", lambda _: False)
    assert 'id="wer"' in read(maker)[0]
    os.utime(maker.folder / "merged.json")
    assert "the environment asr is not here" in read(maker)[1].text
    assert source.count('id="wer"') == 1


@has_jiwer
def test_a_field_beside_the_truth(moment, ready):
    maker = run_of_transcripts(moment, text="good morning", pred_text="good evening")
    parameters(maker, field="pred_text", settings={"language": "de"})
    _, reader = read(maker)
    assert "Word error rate 50.00\u00a0%" in reader.headings
    assert "pred_text against text, 12 items" in reader.text


def test_what_the_file_says_is_shown_and_escaped(moment, monkeypatch):
    monkeypatch.setattr(environments, "is_ready", lambda _: False)
    maker = run_of_transcripts(moment, text="no reference")
    (maker.folder / "wer.json").write_text(json.dumps(scores()))
    source, reader = read(maker)
    assert "Word error rate 40.00\u00a0%" in reader.headings
    assert "<script" not in source
    assert "the <b>cat</b> sat" in reader.text
    assert "<script>x</script>" in reader.text
    assert "By <speaker>, normalised" in reader.headings
    assert "5 more left out" in reader.text
    assert "2 items without a transcript not counted (as empty ones they would make the rate 44.44 %)" in reader.text


def test_no_words_no_rate(moment):
    maker = run_of_transcripts(moment, text="")
    none = {"hits": 0, "substitutions": 0, "deletions": 0, "insertions": 0}
    whole = {**scores()["whole"], "normalised": {"words": none, "characters": none}}
    (maker.folder / "wer.json").write_text(json.dumps(scores(whole=whole, worst=[], by={}, empty_references=3)))
    _, reader = read(maker)
    assert "Word error rate" in reader.headings
    assert "3 references without words" in reader.text


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"whole": 3}'])
def test_a_file_that_cannot_be_read_is_named(moment, text):
    maker = run_of_transcripts(moment, text="no reference")
    (maker.folder / "wer.json").write_text(text)
    assert f"{maker.folder / 'wer.json'} cannot be read" in read(maker)[1].text


@pytest.mark.parametrize(
    ("pipeline", "fields"), [("asr", {"text": "a"}), ("vad", {"text_reference": "a", "text": "a"})]
)
def test_runs_without_references_have_no_section(moment, ready, pipeline, fields):
    maker = run_of_transcripts(moment, **fields)
    if pipeline != "asr":
        path = maker.folder / "run.json"
        path.write_text(path.read_text().replace('"asr"', f'"{pipeline}"'))
    assert 'id="wer"' not in read(maker)[0]
    assert not (maker.folder / "wer.json").exists()


def test_before_the_merge_there_is_no_section(moment, ready):
    maker = run_of_transcripts(moment, text_reference="a", text="a")
    (maker.folder / "merged.json").unlink()
    assert 'id="wer"' not in read(maker)[0]


def test_a_manifest_that_changed_is_not_counted(moment, ready):
    maker = run_of_transcripts(moment, text_reference="a", text="a")
    with (maker.folder / "listing.jsonl").open("a") as file:
        file.write('{"audio_filepath": "/new.wav", "duration": 1.0, "text": "b", "text_reference": "b"}\n')
    found = report_wer._scores(Run.open(maker.made.run_id()), merge.last_receipt(Run.open(maker.made.run_id())))
    assert "has changed since this run was merged" in found.text


def test_a_count_that_fails_is_told(moment, ready, monkeypatch, tmp_path):
    maker = run_of_transcripts(moment, text_reference="a", text="a")
    monkeypatch.setattr(report_wer, "_MODULE", "pipelines.there_is_none")
    assert "It was not counted: " in read(maker)[1].text
    monkeypatch.setattr(environments, "python", lambda _: tmp_path / "gone")
    assert "It was not counted: " in read(maker)[1].text
    (maker.folder / "listing.jsonl").unlink()
    found = report_wer._scores(Run.open(maker.made.run_id()), merge.last_receipt(Run.open(maker.made.run_id())))
    assert "It was not counted: There is no manifest" in found.text
