"""Options: the field's names, defaults that give raw runs, and refusals that teach."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.core import cli
from pipelines.core.errors import UsageError
from pipelines.vad import PIPELINE, options

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = {
    "engine": "ten",
    "onset": 0.5,
    "offset": 0.5,
    "min_speech": 0.0,
    "min_silence": 0.0,
    "pad_onset": 0.0,
    "pad_offset": 0.0,
    "max_segment": None,
    "rttm": False,
}


def parsed(*arguments: str) -> dict:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    options.add_arguments(parser)
    return dict(options.parameters(parser.parse_args(arguments)))


def test_defaults():
    assert parsed() == DEFAULTS


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        ("--threshold 0.6", {"onset": 0.6, "offset": 0.6}),
        ("--onset 0.6 --offset 0.35", {"onset": 0.6, "offset": 0.35}),
        ("--neg_threshold 0.35", {"offset": 0.35}),
        (
            "--min-speech 0.25 --min-silence 0.1 --pad 0.03",
            {"min_speech": 0.25, "min_silence": 0.1, "pad_onset": 0.03, "pad_offset": 0.03},
        ),
        ("--min_speech_duration_ms 250 --min-silence-duration-ms 100", {"min_speech": 0.25, "min_silence": 0.1}),
        ("--speech_pad_ms 30", {"pad_onset": 0.03, "pad_offset": 0.03}),
        ("--min_duration_on 0.5 --min-duration-off 0.4", {"min_speech": 0.5, "min_silence": 0.4}),
        ("--pad_onset 0.2 --pad-offset 0.1", {"pad_onset": 0.2, "pad_offset": 0.1}),
        ("--pad 0.2 --pad-offset 0.1", {"pad_onset": 0.2, "pad_offset": 0.1}),
        ("--max_speech_duration_s 20", {"max_segment": 20.0}),
        ("--max-segment 20 --engine silero --rttm", {"max_segment": 20.0, "engine": "silero", "rttm": True}),
    ],
)
def test_the_names_of_the_field(arguments, changed):
    assert parsed(*arguments.split()) == {**DEFAULTS, **changed}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--threshold 1.5", "between 0 and 1"),
        ("--threshold 0", "between 0 and 1"),
        ("--offset 0.7", "no higher than the threshold, 0.5"),
        ("--offset 0", "above 0"),
        ("--min-speech -1", "--min-speech is -1 seconds"),
        ("--min-silence 100000", "milliseconds go with"),
        ("--pad 5000", "--pad-onset is 5000"),
        ("--max-segment 1 --min-speech 0.6", "must be 1.2 or more"),
        ("--max-segment 0.01", "must be 0.1 or more"),
    ],
)
def test_refusals(arguments, words):
    with pytest.raises(UsageError, match=words):
        parsed(*arguments.split())


@pytest.mark.parametrize("arguments", ["--threshold nan", "--min-speech inf", "--engine webrtc", "--pad x"])
def test_what_is_no_number_or_engine(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        parsed(*arguments.split())
    assert stopped.value.code == 2
    assert arguments.split()[0] in capsys.readouterr().err


def test_help_names_every_option_once():
    text = " ".join(cli.build_parser(PIPELINE).format_help().split())
    for name in ("--engine", "--threshold", "--onset", "--offset", "--min-speech", "--max-segment", "--rttm", "STEM"):
        assert name in text
    assert "--min_speech" not in text
    assert "(default: 0.5)" in text


def test_the_description_needs_no_packages():
    """Neither numpy nor an engine is imported by --help, a listing or a merge."""
    names = "('numpy', 'soundfile', 'onnxruntime')"
    script = f"import sys, pipelines.vad; print([name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_pipeline_toml():
    tomllib = pytest.importorskip("tomllib")
    described = tomllib.loads((ROOT / "pipelines/vad/pipeline.toml").read_text())
    assert described["environment"] == PIPELINE.environment_for({})
    assert described["summary"] == PIPELINE.summary
    assert set(described["resources"]) == {"cpus", "gpus", "mem", "time"}
