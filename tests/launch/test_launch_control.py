"""Commands on a run that exists: merge, logs, doctor, the seed's merge_manifest, the demo's parts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import merge_manifest
from pipelines.core.errors import EnvironmentNotFit
from slurm import cli, demo, doctor, environments, probes
from tests.launch.conftest import make_environment
from tests.launch.place import wait_until


@pytest.fixture
def half(place):
    """A run with 4 of 10 items done."""
    manifest = place.manifest(10)
    cli.main(["tone", str(manifest), "--cluster", "local", "--limit", "4"])
    return manifest


def test_merge_refuses_what_is_incomplete_and_says_how_to_go_on(half, place, capsys):
    assert cli.main(["merge", str(half)]) == 1
    error = capsys.readouterr().err
    assert "6 of 10 items" in error
    assert "voxarray retry" in error
    assert cli.main(["merge", "last", "--partial"]) == 1
    assert "4 merged + 0 quarantined + 6 missing (PARTIAL merge)" in capsys.readouterr().out
    assert cli.main(["retry", "last", "--cluster", "local"]) == 0
    assert cli.main(["merge", "last"]) == 0
    assert cli.main(["merge", "last"]) == 0


def test_seeds_spelling_of_merge(half, place, caplog):
    assert merge_manifest.main(["--manifest", str(half)]) == 1
    assert cli.main(["retry", "last", "--cluster", "local"]) == 0
    assert merge_manifest.main(["--manifest", str(half)]) == 0
    assert merge_manifest.main(["--manifest", "nothing.json"]) == 2


def test_seeds_spelling_needs_no_launcher():
    program = (
        "import sys, pipelines.merge_manifest; print(*(name for name in sys.modules if name.startswith('slurm')))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "\n"


@pytest.mark.parametrize("command", ["merge", "retry", "logs", "cancel"])
def test_unknown_run(place, capsys, command):
    assert cli.main([command, "nope"]) == 2
    assert "There is no run 'nope'" in capsys.readouterr().err


# -- logs


def test_logs_of_all_of_one_and_errors(place, capsys):
    manifest = place.manifest(9, **{"raise": lambda number: f"bad header {number}" if number % 3 == 0 else None})
    cli.main(["tone", str(manifest), "--cluster", "local", "--tasks", "3"])
    capsys.readouterr()
    assert cli.main(["logs", "last"]) == 0
    out = capsys.readouterr().out
    assert all(f"task_000{task}.log <==" in out for task in range(3))
    cli.main(["logs", "last", "--task", "1"])
    out = capsys.readouterr().out
    assert "task_0001.log" in out
    assert "task_0000.log" not in out
    cli.main(["logs", "last", "--errors"])
    first = capsys.readouterr().out.splitlines()[0]
    assert first.split("×")[0].strip() == "3"
    assert "bad header" in first


@pytest.mark.parametrize("words", [["--task", "99"], ["--task", "x"], ["--launch", "7"]])
def test_logs_that_do_not_exist(half, capsys, words):
    assert cli.main(["logs", "last", *words]) == 2


def test_logs_are_followed(place):
    place.start(
        "tone", place.manifest(40, nap=0.1, kill=lambda number: 9 if number == 20 else None), "--cluster", "local"
    )
    wait_until(lambda: list(place.home.glob("logs/*/*/task_*.log")))
    follower = place.start("logs", "last", "--follow")
    wait_until((place.folder() / "merged.json").exists)
    time.sleep(1.5)
    follower.send_signal(2)
    out, _ = follower.communicate(timeout=180)
    assert follower.returncode == 0
    assert "ended with status" in out


# -- doctor


def test_doctor_on_this_machine(place, capsys):
    assert cli.main(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert all(set(finding) == {"topic", "name", "standing", "seen", "remedy"} for finding in findings)
    standing = {finding["name"]: finding["standing"] for finding in findings}
    assert standing["link"] == standing["rename"] == standing["exclusive create"] == "ok"
    assert not list((place.home / "output").iterdir()), "the probes leave nothing behind"
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out.endswith("Fit.\n")


def test_doctor_asks_the_cluster(cluster, capsys):
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "arrays of up to 1001 tasks" in out
    assert "main* (4 nodes, 1-00:00:00)" in out


def test_doctor_where_nothing_can_be_written(place, monkeypatch, capsys):
    (place.root / "file").write_text("")
    monkeypatch.setenv("VOXARRAY_HOME", str(place.root / "file"))
    assert cli.main(["doctor"]) == 3
    out = capsys.readouterr().out
    assert "NOT " in out
    assert "VOXARRAY_HOME" in out


def test_doctor_names_a_missing_environment(place, capsys):
    (place.root / "envs" / "vad" / ".voxarray-stamp").unlink()
    assert cli.main(["doctor"]) == 0
    assert "env create vad" in capsys.readouterr().out


def test_silent_controller_is_not_fit(cluster, capsys):
    (cluster.root / "cluster").mkdir()
    (cluster.root / "cluster" / "down").write_text("")
    assert cli.main(["doctor"]) == 3
    assert "Unable to contact slurm controller" in capsys.readouterr().out


def standing(findings):
    return {finding.name: finding.standing for finding in findings}


def test_file_system_without_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(probes.os, "link", refuse)
    found = standing(probes.file_system(tmp_path))
    assert (found["link"], found["rename"]) == (probes.NOTE, probes.GOOD)


def test_file_system_whose_links_replace(tmp_path, monkeypatch):
    monkeypatch.setattr(probes.os, "link", lambda source, target: target.write_text(source.read_text()))
    assert standing(probes.file_system(tmp_path))["link"] == probes.BAD


def test_file_system_without_locks(tmp_path, monkeypatch):
    import fcntl

    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert standing(probes.file_system(tmp_path))["lock"] == probes.NOTE
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    assert standing(probes.file_system(tmp_path))["lock"] == probes.NOTE


def test_full_disk_is_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(probes.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 2**29})())
    assert probes.space(tmp_path / "not" / "yet").standing == probes.BAD


@pytest.mark.parametrize(
    ("options", "standing"), [("rw,nolock", "note"), ("rw,flock", "ok"), ("rw,localflock", "note")]
)
def test_mounts_whose_locks_do_not_hold(tmp_path, monkeypatch, options, standing):
    monkeypatch.setattr(probes, "mount", lambda _: ("nfs", options))
    assert next(iter(probes.file_system(tmp_path))).standing == standing


def test_every_finding_that_is_not_well_says_what_to_do():
    text = doctor.told(
        [probes.Finding("t", "n", probes.BAD, "seen", "do this"), probes.Finding("t", "m", "ok", "seen")]
    )
    assert "-> do this" in text
    assert text.endswith("Not fit: see what is marked NOT.")


# -- demo


def test_demo_needs_a_directory_that_exists(place, capsys):
    assert cli.main(["demo", "nowhere"]) == 2
    assert "is not a directory" in capsys.readouterr().err


def test_demo_says_why_its_corpus_could_not_be_made(place):
    make_environment(place.root / "envs" / "demo")
    python = place.root / "envs" / "demo" / "bin" / "python"
    python.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    with pytest.raises(EnvironmentNotFit, match="broken"):
        demo.make_corpus(place.home / "output" / "demo" / "corpus")


def test_demos_corpus_has_voices_pauses_and_words(tmp_path):
    numpy, soundfile = pytest.importorskip("numpy"), pytest.importorskip("soundfile")
    if not environments.is_ready("demo"):
        pytest.skip("the environment demo is not made")
    program = Path(demo.__file__).with_name("voice.py")
    subprocess.run([environments.python("demo"), program, tmp_path], check=True)
    rows = [json.loads(line) for line in (tmp_path / "transcripts.json").read_text().splitlines()]
    assert {str(tmp_path / row["audio_filepath"]) for row in rows} == {
        str(path) for path in tmp_path.rglob("*") if path.suffix in (".wav", ".flac", ".ogg")
    }
    assert all(len(row["text"].split()) > 15 for row in rows)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".json")
    assert len(files) == 12
    assert {path.suffix for path in files} == {".wav", ".flac", ".ogg"}
    for path in files:
        samples, rate = soundfile.read(path, always_2d=True)
        level = numpy.abs(samples[:, 0])
        frames = level[: level.size // (rate // 10) * (rate // 10)].reshape(-1, rate // 10).max(axis=1)
        assert 3 < samples.shape[0] / rate < 30
        assert level.max() <= 1
        assert 0.1 < (frames < 0.05).mean() < 0.7, "pauses"
