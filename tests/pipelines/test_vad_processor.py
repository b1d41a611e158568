"""The processor and a whole run: the same bytes however recordings are batched, and bad ones stop nothing."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipelines.core.errors import EnvironmentNotFit, ItemError
from pipelines.core.manifest import parse
from pipelines.core.pipeline import Resources
from pipelines.vad import load
from pipelines.vad.options import ENGINES
from tests import corpus

ROOT = Path(__file__).resolve().parents[2]
PARAMETERS = {
    "onset": 0.5,
    "offset": 0.5,
    "min_speech": 0.0,
    "min_silence": 0.0,
    "pad_onset": 0.0,
    "pad_offset": 0.0,
    "max_segment": None,
    "rttm": False,
}


def item(path, **fields):
    return parse(0, json.dumps({"audio_filepath": str(path), **fields}).encode())


def processor(engine: str, cpus: int = 2, **changed):
    try:
        return load({**PARAMETERS, **changed, "engine": engine}, Resources(cpus=cpus))
    except EnvironmentNotFit as error:
        pytest.skip(str(error))


def encoded(results) -> list[str]:
    return [json.dumps(result) if isinstance(result, dict) else repr(result) for result in results]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_bytes_in_any_company(engine, prompts, tmp_path):
    """Alone, in fours, all at once, in another order, from several threads: guarantee 6."""
    bad = corpus.bad_files(tmp_path, prompts[0])
    items = [item(path) for path in [*prompts, *bad.values()]]
    made = processor(engine, cpus=3)
    alone = [encoded(made.process([one]))[0] for one in items]
    for size in (4, 24, len(items)):
        for seed in range(2):
            order = list(range(len(items)))
            random.Random(seed).shuffle(order)
            batches = [order[at : at + size] for at in range(0, len(order), size)]
            with ThreadPoolExecutor(made.concurrency) as pool:
                results = pool.map(lambda batch: encoded(made.process([items[number] for number in batch])), batches)
                found = dict(zip(order, (result for batch in results for result in batch)))
            assert [found[number] for number in range(len(items))] == alone
    made.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_bad_recordings_are_errors_of_their_own(engine, prompts, tmp_path):
    bad = corpus.bad_files(tmp_path, prompts[0])
    made = processor(engine)
    paths = [prompts[0], *bad.values(), prompts[1]]
    results = made.process([item(path) for path in paths])
    assert len(results) == len(paths)
    assert isinstance(results[0], dict)
    assert isinstance(results[-1], dict)
    assert all(isinstance(result, ItemError) for result in results[1:-1])


def test_a_long_recording_is_shared_out_over_idle_cores(speech, tmp_path):
    """With three cores and one recording, two cores help; the bytes are those of one core."""
    path = corpus.write_wave(tmp_path / "long.wav", np.resize(speech, 5 * 480_000 + 5000))
    results, helped = [], []
    for cpus in (1, 3):
        made = processor("ten", cpus=cpus)
        made._engine.block = 480_000
        spawn = made._engine._spawn

        def counting(work, spawn=spawn, cpus=cpus):
            future = spawn(work)
            helped.append((cpus, future is not None))
            return future

        made._engine._spawn = counting
        results += encoded(made.process([item(path)]))
        made.close()
    assert results[0] == results[1]
    assert (3, True) in helped
    assert (1, True) not in helped


def test_a_problem_that_the_listing_knew(prompts):
    [result] = processor("silero").process([item(prompts[0], problem="It is a symbolic link to nothing.")])
    assert repr(result) == "ItemError('It is a symbolic link to nothing.')"
    [result] = processor("silero").process([item(prompts[0], speaker="problem")])
    assert isinstance(result, dict)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_twentieth_of_a_second_and_less(engine, tmp_path):
    tone = (3000 * np.sin(np.arange(16000) / 5)).astype(np.int16)
    made = processor(engine)
    for count in (1, 100, 255, 256, 800):
        [result] = made.process([item(corpus.write_wave(tmp_path / f"{count}.wav", tone[:count]))])
        assert result["duration"] == round(count / 16000, 6)
        assert 0 <= result["spch-ratio"] <= 1
        assert all(0 <= start < end <= result["duration"] for start, end in result["segments"])


@pytest.mark.parametrize("engine", ENGINES)
def test_options_reach_the_segments(engine, tmp_path):
    try:
        made = corpus.truth(1, seconds=30.0)[0]
    except corpus.Missing as reason:
        pytest.skip(str(reason))
    path = corpus.write_wave(tmp_path / "a.wav", made.samples)
    [raw] = processor(engine).process([item(path)])
    changed = {"min_silence": 0.25, "min_speech": 0.1, "pad_onset": 0.05, "pad_offset": 0.05, "max_segment": 2.0}
    [smooth] = processor(engine, **changed).process([item(path)])
    assert len(smooth["segments"]) <= len(raw["segments"]) + 5
    assert smooth["spch-ratio"] > raw["spch-ratio"]
    assert all(0.19 <= end - start <= 2.001 for start, end in smooth["segments"])
    score = corpus.score([(made.speech, smooth["segments"], 30.0)])
    assert score.accuracy > 95


@pytest.mark.parametrize("engine", ENGINES)
def test_accuracy_where_the_truth_is_known(engine):
    try:
        made = [one for condition in corpus.CONDITIONS.values() for one in corpus.truth(4, condition=condition)]
    except corpus.Missing as reason:
        pytest.skip(str(reason))
    network = processor(engine)
    pairs = []
    for one in made:
        probabilities = network._engine.probabilities([one.samples])
        found = corpus.runs_of(probabilities > 0.5, network._engine.hop)
        pairs.append((one.speech, found, len(one.samples) / 16000))
    assert corpus.score(pairs).accuracy > 97.5


def run(tmp_path, folder, stem, *options):
    command = [sys.executable, "-m", "pipelines.vad", str(folder), str(stem), *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    environment["VOXARRAY_HOME"] = str(tmp_path / "home")
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_whole_run(engine, prompts, tmp_path):
    """From a directory to the files, twice: with one task on one core, and with three tasks on two."""
    folder = tmp_path / "corpus"
    for number, path in enumerate(prompts[:12]):
        (folder / f"s{number % 3}").mkdir(parents=True, exist_ok=True)
        (folder / f"s{number % 3}" / f"{number}.wav").write_bytes(path.read_bytes())
    corpus.convert(prompts[0], folder / "s0" / "a.MP3", "-ar", "44100", "-ac", "2")
    bad = corpus.bad_files(folder / "bad", prompts[0])
    processor(engine).close()
    outputs = []
    for name, options in (("one", []), ("two", ["--tasks", "3", "--cpus", "2"])):
        done = run(tmp_path, folder, tmp_path / name / "stem", "--engine", engine, "--rttm", *options)
        assert done.returncode == 1, done.stderr
        outputs.append({path.name: path.read_bytes() for path in sorted((tmp_path / name).iterdir())})
    assert outputs[0] == outputs[1]
    rows = list(csv.DictReader(outputs[0]["stem.csv"].decode().splitlines()))
    assert [row["audio_filepath"] for row in rows] == sorted(row["audio_filepath"] for row in rows)
    assert len(rows) == 13 + len(bad)
    assert {Path(row["audio_filepath"]).name for row in rows if row["error"]} == set(bad)
    assert len(outputs[0]["stem.json"].splitlines()) == 13
    assert len(outputs[0]["stem_segments.json"].splitlines()) >= 12


def test_a_run_over_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    done = run(tmp_path, tmp_path / "empty", tmp_path / "stem")
    assert done.returncode == 2
    assert "No recordings were found" in done.stderr
    done = run(tmp_path, tmp_path / "nowhere", tmp_path / "stem")
    assert done.returncode == 2
    assert "does not exist" in done.stderr
    done = run(tmp_path, tmp_path / "empty", tmp_path / "stem", "--threshold", "7")
    assert done.returncode == 2
    assert "between 0 and 1" in done.stderr
