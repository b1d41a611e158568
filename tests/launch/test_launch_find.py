"""Which run is meant."""

from __future__ import annotations

import os

import pytest

from pipelines.core import registry
from pipelines.core.errors import UsageError
from pipelines.core.run import Run
from slurm import find


@pytest.fixture
def runs(place):
    """Two runs of one manifest, and one of a directory with a stem."""
    tone, chime = registry.find("tone"), registry.find("chime")
    (place.root / "audio").mkdir()
    made = [
        Run.create(tone, place.manifest(2), None, {"factor": 1.0}),
        Run.create(tone, place.manifest(2), None, {"factor": 2.0}),
        Run.create(chime, place.root / "audio", place.root / "out" / "res", {"pitch": 440}),
    ]
    for age, run in enumerate(reversed(made)):
        os.utime(run.folder, (1e9 - age, 1e9 - age))
    return made


def test_by_id_and_its_beginning(runs):
    assert find.run(runs[0].id).id == runs[0].id
    assert find.run("res").id == runs[2].id


def test_last_is_the_latest(runs):
    assert find.run("last").id == runs[2].id


@pytest.mark.parametrize("name", ["audio", "out/res", "out/res.csv", "out/res.json", "out/res_segments.json"])
def test_by_directory_stem_and_outputs(runs, place, name):
    assert find.run(str(place.root / name)).id == runs[2].id
    assert find.run(name).id == runs[2].id


def test_manifest_of_two_runs_is_asked_back(runs, place):
    with pytest.raises(UsageError, match="may mean 2 runs") as error:
        find.run(str(place.root / "m.json"))
    assert all(run.id in str(error.value) for run in runs[:2])
    assert "factor=2.0" in str(error.value)


def test_beginning_of_two_ids_is_asked_back(runs):
    with pytest.raises(UsageError, match="may mean 2 runs"):
        find.run("m-")


def test_unknown_run_names_the_latest(runs):
    with pytest.raises(UsageError, match=f"There is no run 'nope'.*The latest are {runs[2].id}"):
        find.run("nope")


def test_no_runs_at_all(place):
    with pytest.raises(UsageError, match="There are none"):
        find.run("last")


def test_damaged_plan_does_not_hide_the_others(runs):
    (runs[0].folder / "run.json").write_text("{")
    assert find.run("m-").id == runs[1].id


def test_runs_set_aside_are_not_meant(runs):
    runs[1].folder.rename(str(runs[1].folder) + ".until-2026")
    assert find.run("m-").id == runs[0].id


def test_symbolic_links_lead_to_the_run(runs, place):
    (place.root / "link").symlink_to(place.root / "audio")
    assert find.run(str(place.root / "link")).id == runs[2].id
