"""Runs whose files cannot be read: they hide no other run, and the table says that they are missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_runs import Made, make

from pipelines.core.run import Run
from slurm import find, status
from slurm.view import watch
from slurm.view.standing import Looker


@pytest.fixture
def damaged(moment):
    """Of four runs: one may not be read, one has a damaged record, one a damaged plan; `good` is well."""
    for name in ("good", "refused", "record", "plan"):
        folder = make(Made(items=20, tasks=2, name=name), moment).folder
        if name == "record":
            (folder / "launch-000.json").write_text("{")
        if name == "plan":
            (folder / "run.json").write_text("{")


@pytest.fixture
def _refusal(monkeypatch):
    """The system refuses the files of one run (permissions would not stop root)."""
    look = Looker.look

    def refused(self, run):
        if run.id.startswith("refused"):
            raise PermissionError(13, "Permission denied", str(run.folder))
        return look(self, run)

    monkeypatch.setattr(Looker, "look", refused)


@pytest.mark.usefixtures("damaged", "_refusal")
def test_one_that_cannot_be_read_hides_no_other_and_is_counted(capsys):
    assert status.main([]) == 0
    out, error = capsys.readouterr()
    assert "good-00000001" in out
    assert "3 runs left out: their files cannot be read." in out
    assert len(error.splitlines()) == 3
    assert all(f"{name}-00000001" in error for name in ("refused", "record", "plan"))
    assert status.main(["--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert ([run["run"] for run in value["runs"]], value["unread"]) == (["good-00000001"], 3)


@pytest.mark.usefixtures("damaged", "_refusal")
def test_it_is_not_said_that_there_are_no_runs_where_none_can_be_read(home, capsys):
    (home / "output" / "runs" / "good-00000001" / "run.json").unlink()
    assert status.main([]) == 0
    out = capsys.readouterr().out
    assert "There are no runs" not in out
    assert "3 runs left out" in out


@pytest.mark.usefixtures("damaged")
def test_what_fresh_set_aside_is_not_missed(home, capsys):
    runs = Path(home) / "output" / "runs"
    (runs / "plan-00000001").rename(runs / "plan-00000001.until-20261118")
    assert status.main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unread"] == 1


@pytest.mark.usefixtures("damaged", "_refusal")
def test_a_run_that_was_named_is_refused_with_the_reason():
    with pytest.raises(PermissionError):
        status.main(["refused"])


@pytest.mark.usefixtures("damaged", "_refusal")
def test_a_watcher_is_told_how_many_are_left_out(capsys):
    runs = [Run(plan) for plan in find.plans()]
    views = watch.watch(lambda: runs, every_s=0.2, over=lambda views: len(views) == 1)
    assert [view.run.id for view in views] == ["good-00000001"]
    out, error = capsys.readouterr()
    assert "2 runs left out: their files cannot be read." in out
    assert "refused-00000001" in error


@pytest.mark.usefixtures("damaged", "_refusal")
def test_a_program_that_watches_is_told_how_many_are_left_out(capsys, monkeypatch):
    monkeypatch.setattr(watch, "never", lambda _: True)
    assert status.main(["--watch", "0.2", "--json"]) == 0
    value = json.loads(capsys.readouterr().out.splitlines()[0])
    assert ([run["run"] for run in value["runs"]], value["unread"]) == (["good-00000001"], 3)


def test_the_screen_says_how_many_are_left_out(home, moment):
    from made_runs import look_at

    from slurm.view import watch_text
    from slurm.view.text import Terminal
    from slurm.view.watch_text import Frame, Watched

    (line,) = [text for text in watch_text.screen(Frame([], 0, 2.0, unread=1), Terminal(80), 24) if "left out" in text]
    assert line == "1 run left out: its files cannot be read."
    view = look_at(make(Made(items=20, tasks=2), moment))
    assert (
        "1 run, 0 at work, 2 unreadable"
        in watch_text.screen(Frame([Watched(view)], 0, 2.0, unread=2), Terminal(80), 24)[0]
    )
