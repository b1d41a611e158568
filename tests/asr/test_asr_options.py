"""The options of `asr`: the model that is taken where none is named, and what no model can honour."""

from __future__ import annotations

import argparse
import json

import pytest

from pipelines.asr import options as asr
from pipelines.asr.backends import locate
from pipelines.core import store
from pipelines.core.errors import UsageError


def parsed(*words, **more):
    parser = argparse.ArgumentParser()
    asr.add_arguments(parser)
    found = parser.parse_args(words)
    vars(found).update(more)
    return found


@pytest.fixture
def node(monkeypatch):
    """A machine with or without GPUs, and what it shows of them."""

    def make(gpu, visible=None):
        monkeypatch.setattr(asr.shutil, "which", lambda name: f"/usr/bin/{name}" if gpu else None)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return make


@pytest.mark.parametrize(
    ("gpu", "visible", "expected"),
    [
        (True, None, asr.ON_A_GPU),
        (False, None, asr.WITHOUT),
        (True, "0,1", asr.ON_A_GPU),
        (False, "GPU-8a1b", asr.ON_A_GPU),
        (True, "-1", asr.WITHOUT),
        (True, "", asr.WITHOUT),
    ],
)
def test_the_model_of_this_process_is_what_it_sees(node, gpu, visible, expected):
    node(gpu, visible)
    assert asr._default(parsed()) == expected


@pytest.mark.parametrize("gpu", [True, False])
def test_the_model_of_tasks_is_what_they_get(node, gpu):
    node(gpu, "0" if gpu else None)
    for asked, expected in [("0", asr.WITHOUT), (0, asr.WITHOUT), ("1", asr.ON_A_GPU), ("a100:1", asr.ON_A_GPU),
                            ("a100:0", asr.WITHOUT)]:  # fmt: skip
        assert asr._default(parsed(gpus=asked)) == expected


def test_the_launcher_gives_it_what_a_profile_asks_for(place, capsys, monkeypatch):
    """On a machine without a GPU, whose cluster has some."""
    from slurm import cli

    monkeypatch.delenv("VOXARRAY_PIPELINES", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("HF_HOME", str(place / "hf"))
    (place / "m.json").write_text(json.dumps({"audio_filepath": "/a.wav", "duration": 1.0}) + "\n")
    profiles = place / "config" / "voxarray" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "gpu.toml").write_text('gpus = "a100:1"\n')
    words = ["asr", str(place / "m.json"), "--cluster", "local", "--dry-run"]
    assert cli.main([*words, "--profile", "gpu"]) == 2
    assert f"{asr.ON_A_GPU} is not on this machine" in capsys.readouterr().err
    assert cli.main([*words, "--profile", "gpu", "--gpus", "0"]) == 0
    assert "model=pocketsphinx" in capsys.readouterr().out


def test_a_chain_tells_at_once_that_a_model_is_missing(place, capsys, monkeypatch):
    """Though the step waits for what an earlier one leaves."""
    from slurm import cli

    monkeypatch.delenv("VOXARRAY_PIPELINES", raising=False)
    monkeypatch.setenv("HF_HOME", str(place / "hf"))
    (place / "corpus").mkdir()
    words = ["run", "seed", f"recordings={place / 'corpus'}", "--cluster", "local", "--dry-run"]
    assert cli.main([*words, f"asr_model={asr.ON_A_GPU}"]) == 2
    assert f"Step transcripts cannot be done. The model {asr.ON_A_GPU}" in capsys.readouterr().err


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("VOXARRAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


@pytest.mark.parametrize(
    ("backend", "given"),
    [
        ("pocketsphinx", ["--language", "de"]),
        ("pocketsphinx", ["--prompt", "Translate:"]),
        ("pocketsphinx", ["--decoder", "ctc"]),
        ("pocketsphinx", ["--precision", "bf16"]),
        ("salm", ["--language", "de"]),
        ("salm", ["--decoder", "ctc"]),
        ("nemo", ["--prompt", "Translate:"]),
        ("transformers", ["--prompt", "Translate:"]),
        ("transformers", ["--decoder", "ctc"]),
    ],
)
def test_settings_that_mean_nothing_to_a_model_are_refused(monkeypatch, backend, given):
    monkeypatch.setattr(locate, "locate", lambda name: locate.Model(name, backend, None, None))
    with pytest.raises(UsageError, match=rf"{given[0]} {given[1]} means nothing .* {backend} runs"):
        asr.parameters(parsed("--model", "some/model", *given))
    with pytest.raises(UsageError, match="means nothing"):
        asr.foresee(parsed("--model", "some/model", *given))


@pytest.mark.parametrize(
    ("backend", "given", "settings"),
    [
        ("pocketsphinx", [], {"precision": "auto"}),
        ("salm", ["--prompt", "Write:"], {"precision": "auto", "prompt": "Write:"}),
        ("nemo", ["--decoder", "ctc", "--precision", "bf16"], {"precision": "bf16", "decoder": "ctc"}),
        ("transformers", ["--language", "de"], {"precision": "auto", "language": "de"}),
    ],
)
def test_settings_that_a_model_knows_are_taken(monkeypatch, backend, given, settings):
    monkeypatch.setattr(locate, "locate", lambda name: locate.Model(name, backend, None, None))
    assert asr.parameters(parsed("--model", "some/model", *given))["settings"] == settings


def test_segments_are_not_given_where_none_are_wanted(tmp_path):
    (tmp_path / "s.json").touch()
    given = parsed("--model", "pocketsphinx", "--vad", "never", "--vad-segments", str(tmp_path / "s.json"))
    with pytest.raises(UsageError, match="give one of the two"):
        asr.parameters(given)


def test_what_segments_hold_is_part_of_the_run(place):
    given = parsed("--model", "pocketsphinx", "--vad-segments", str(place / "s.json"))
    (place / "s.json").write_text("one")
    one = asr.parameters(given)
    (place / "s.json").write_text("two")
    assert asr.parameters(given) != one
    assert "vad_segments_version" not in asr.parameters(parsed("--model", "pocketsphinx"))


def test_segments_of_a_run_that_got_more_recordings_are_still_those_of_that_run(place):
    """Else a directory that grew would be transcribed anew."""
    segments = place / "s.json"
    given = parsed("--model", "pocketsphinx", "--vad-segments", str(segments))

    def published(run, text):
        segments.write_text(text)
        receipt = place / "home" / "output" / "runs" / run / "merged.json"
        receipt.parent.mkdir(parents=True, exist_ok=True)
        receipt.write_text(json.dumps({"outputs": [{"path": str(segments), "sha256": store.sha256_of(segments)}]}))
        return asr.parameters(given)

    one = published("s-00000001", "one")
    assert published("s-00000001", "one two") == one
    other = published("s-00000002", "of another threshold")
    assert other != one
    segments.write_text("by hand")
    assert asr.parameters(given) not in (one, other)
