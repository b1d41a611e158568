"""A dry run tells the exact plan, and changes nothing."""

from __future__ import annotations

import re

import pytest

from pipelines.core import registry
from slurm import cli


def lines(text):
    return dict(re.findall(r"^([a-z ]{3,12}?) {2,}(.*)$", text, re.MULTILINE))


def dry(capsys, *words):
    assert cli.main([*map(str, words), "--dry-run"]) == 0
    return capsys.readouterr().out


@pytest.fixture
def audio(place):
    for number in range(7):
        path = place.root / "audio" / f"speaker{number % 2}" / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * number)
    return place.root / "audio"


def test_manifest_run_here(place, capsys):
    manifest = place.manifest(10)
    before = place.tree()
    told = lines(dry(capsys, "tone", manifest, "--cluster", "local", "--tasks", 4, "--factor", 3))
    assert place.tree() == before
    assert told["items"] == "10: 0 done, 0 quarantined, 10 to do"
    assert told["tasks"].startswith("4 (round-robin), 4 of them with items: 2 to 3 items each")
    assert told["parameters"] == "factor=3.0"
    assert told["run"].endswith("(new)")
    assert "lock" in told["environment"]
    assert told["outputs"] == str(manifest)
    assert "tasks 4 (command line)" in told["settings"]


def test_outputs_are_all_that_a_run_leaves(place, capsys):
    manifest = place.manifest(1)
    tone = registry.find("tone")
    leaves = {"manifest": lambda plan: plan.manifest, "units": lambda _: "output/units/x"}
    object.__setattr__(tone, "results", leaves)
    try:
        told = lines(dry(capsys, "tone", manifest, "--cluster", "local"))
    finally:
        object.__setattr__(tone, "results", {})
    assert told["outputs"] == f"{manifest}, output/units/x"


def test_names_the_run_that_is_made_then(place, capsys):
    manifest = place.manifest(3)
    told = lines(dry(capsys, "tone", manifest, "--cluster", "local"))
    assert cli.main(["tone", str(manifest), "--cluster", "debug"]) == 0
    assert place.runs() == [told["run"].split()[0]]
    again = lines(dry(capsys, "tone", manifest, "--cluster", "local"))
    assert again["items"] == "3: 3 done, 0 quarantined, 0 to do"
    assert "exists, with 1 launches" in again["run"]
    fresh = lines(dry(capsys, "tone", manifest, "--cluster", "local", "--fresh"))
    assert fresh["items"] == "3: 0 done, 0 quarantined, 3 to do"
    assert "moved aside" in fresh["run"]


def test_directory_is_listed_elsewhere(place, audio, capsys):
    before = place.tree()
    told = lines(dry(capsys, "chime", audio, place.root / "out", "--cluster", "local", "--limit", 5))
    assert place.tree() == before
    assert told["items"] == "7: 0 done, 0 quarantined, 5 to do (--limit 5)"
    assert told["outputs"] == f"{place.root / 'out'}.*"


def test_slurm_scripts_are_those_of_the_launch(cluster, capsys):
    """Word for word what sbatch gets afterwards."""
    manifest = cluster.manifest(20)
    text = dry(capsys, "tone", manifest, "--tasks", 3, "--mem", "2G", "--max-parallel", 2)
    assert not list((cluster.root / "cluster").glob("*.sh"))
    assert cli.main(["tone", str(manifest), "--tasks", "3", "--mem", "2G", "--max-parallel", "2"]) == 0
    script = (cluster.root / "cluster" / "100.sh").read_text()
    shown = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    ") or not line)
    assert script.strip() in shown
    assert "afterany:<arrays>" in text


def test_a_source_and_a_stem_have_one_spelling(place, audio, capsys):
    plain = dry(capsys, "chime", audio, place.root / "out", "--cluster", "local")
    dotted = dry(capsys, "chime", "audio/speaker0/..", audio / ".." / "out", "--cluster", "local")
    assert lines(dotted)["run"] == lines(plain)["run"]


def test_no_items_fails_as_it_would(place, audio, capsys):
    empty = place.root / "empty"
    empty.mkdir()
    before = place.tree()
    assert cli.main(["chime", str(empty), "--cluster", "local", "--dry-run"]) == 2
    assert "No recordings were found" in capsys.readouterr().err
    assert place.tree() == before


def test_environment_is_not_made(place, capsys):
    (place.root / "envs" / "vad" / ".voxarray-stamp").unlink()
    told = lines(dry(capsys, "tone", place.manifest(3), "--cluster", "local"))
    assert "not there yet, would be made first" in told["environment"]


def test_retry(place, capsys):
    manifest = place.manifest(4, **{"raise": lambda number: "no" if number == 2 else None})
    cli.main(["tone", str(manifest), "--cluster", "debug"])
    capsys.readouterr()
    before = place.tree()
    told = lines(dry(capsys, "retry", "last", "--cluster", "local"))
    assert told["items"] == "4: 3 done, 1 quarantined, 0 to do"
    told = lines(dry(capsys, "retry", "last", "--cluster", "local", "--quarantined"))
    assert told["items"] == "4: 3 done, 1 quarantined, 1 to do"
    assert place.tree() == before
