"""The live view without a terminal, as JSON, for other commands, and what it draws for every size of screen."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from made_runs import look_at
from watch_reader import REPOSITORY, going

from pipelines.core.run import Run
from slurm import find, status
from slurm.view import watch, watch_text
from slurm.view.text import Terminal, visible
from slurm.view.watch_text import Frame, Watched


def test_json_is_an_object_a_line(moment, home):
    moment.now = time.time() - 200
    going(moment, "one")
    command = [sys.executable, "-m", "slurm", "status", "--json", "--watch", "0.2"]
    for words, of_one in (((), False), (("one",), True)):
        process = subprocess.Popen(
            [*command, *words], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
        )
        values = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(180) == 0
        process.stdout.close()
        assert all(value["format"] == 1 for value in values)
        assert ("tasks" in values[0], "runs" in values[0]) == (of_one, not of_one)


def test_several_runs_without_watching(moment, capsys):
    going(moment, "one")
    going(moment, "two")
    going(moment, "three")
    assert status.main(["two", "one"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("-")[0] for line in lines[1:3]] == ["two", "one"]
    assert status.main(["two", "one", "--json"]) == 0
    assert [run["run"][:3] for run in json.loads(capsys.readouterr().out)["runs"]] == ["two", "one"]


# -- what others call


def test_watch_for_a_chain(moment, capsys):
    """Labels, a head, runs that come later, and an end that the caller decides upon."""
    first, second = (Run(plan_of(going(moment, name))) for name in ("one", "two"))
    asked = []

    def select_runs():
        asked.append(1)
        return [first] if len(asked) < 2 else [first, second]

    views = watch.watch(
        select_runs,
        every_s=0.2,
        label=lambda run: "speech" if run.id.startswith("one") else "text",
        over=lambda views: len(views) == 2,
    )
    assert [view.run.id[:3] for view in views] == ["one", "two"]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2, "nothing new is not said again"
    assert "speech: one-00000001 running" in lines[0]
    assert "text: two-00000001 running" in lines[1]


def plan_of(maker):
    return find.run(maker.folder.name).plan


def test_head_and_labels_on_the_screen(moment):
    views = [Watched(look_at(going(moment, name)), label) for name, label in (("one", "speech"), ("two", "text"))]
    lines = watch_text.screen(Frame(views, 1, 2.0, ["chain corpus: step 2 of 3"]), Terminal(100), 30)
    assert lines[1] == "chain corpus: step 2 of 3"
    assert re.match(r"  +speech +one-00000001", lines[3])
    assert re.match(r"> +text +two-00000001", lines[4])


@pytest.mark.parametrize("rows", [8, 12, 24, 50])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_screen_is_never_too_small(moment, rows, width):
    runs = [going(moment, name, tasks=30, bad=0.05, items=3000) for name in ("one", "corpus-with-a-name")]
    runs += [going(moment, f"done{number}", until=None, items=20) for number in range(9)]
    views = [Watched(look_at(maker)) for maker in runs]
    for chosen in (0, 5, len(views) - 1):
        lines = watch_text.screen(Frame(views, chosen, 2.0), Terminal(width), rows)
        assert len(lines) <= rows
        assert sum(line.startswith(">") for line in lines) == 1
        assert all(visible(line) <= width for line in lines if not line.startswith("q or"))


def test_no_runs_yet(home, moment):
    lines = watch_text.screen(Frame([], 0, 2.0), Terminal(80), 24)
    assert "There are no runs" in lines[0]


def test_what_is_merged_is_looked_at_once(moment, monkeypatch):
    done, busy = going(moment, "done", until=None, items=20), going(moment, "busy")
    runs = [Run(plan_of(maker)) for maker in (done, busy)]
    looked = []

    class Counting(watch.Looker):
        def look(self, run):
            looked.append(run.id[:4])
            return super().look(run)

    follower = watch.Follower(Counting())
    for _ in range(3):
        views = follower.look(runs)
    assert [view.state for view in views] == ["merged", "running"]
    assert looked == ["done", "busy", "busy", "busy"]
    os.utime(done.folder)
    follower.look(runs)
    assert looked[-2:] == ["done", "busy"]
