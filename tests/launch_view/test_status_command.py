"""`status` as it is typed: on narrow and wide terminals, for programs, into a pipe, with and without colours."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest
from made_runs import Made, Maker, look_at, make

from pipelines.core.errors import UsageError
from slurm import status
from slurm.view import run_text
from slurm.view.text import Terminal, visible

REPOSITORY = Path(__file__).resolve().parents[2]
RUN_FIELDS = {
    "format", "run", "pipeline", "state", "says", "time", "items", "done", "quarantined", "left", "exact",
    "audio_seconds", "audio_seconds_expected", "speed", "eta_s", "wall_s", "created", "last_sign_s", "launches",
    "tasks",
    "failures", "failures_complete", "notes", "outputs", "next",
}  # fmt: skip
TASK_FIELDS = {
    "launch", "task", "state", "host", "job", "dealt", "settled", "failed", "audio_seconds", "audio_seconds_dealt",
    "speed", "eta_s", "last_sign_s", "restarts", "slow", "note",
}  # fmt: skip
CAUSE_FIELDS = {"signature", "kind", "message", "items", "quarantined", "tries", "examples", "advice"}
LISTED_FIELDS = {
    "run", "pipeline", "state", "items", "done", "quarantined", "left", "audio_seconds", "speed", "eta_s", "created",
    "last_sign_s",
}  # fmt: skip


@pytest.fixture
def running(moment) -> Maker:
    return make(Made(items=2000, tasks=4, speed=20, until=200, bad=0.01, name="going", seed=2), moment)


def test_the_json_form_of_a_run_is_stable(running, capsys):
    assert status.main(["going", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["format"] == 1
    assert set(value) == RUN_FIELDS
    assert set(value["tasks"][0]) == TASK_FIELDS
    assert set(value["failures"][0]) == CAUSE_FIELDS
    assert set(value["launches"][0]) == {"launch", "cluster", "tasks", "items", "sharding", "created"}
    assert (value["state"], value["items"], len(value["tasks"])) == ("running", 2000, 4)
    assert value["left"] == value["items"] - value["done"] - value["quarantined"]
    assert value["failures"][0]["examples"][0].startswith("/data/going/")


def test_the_json_form_of_all_runs_is_stable(running, moment, capsys):
    make(Made(items=10, tasks=1, name="older"), moment)
    assert status.main(["--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert set(value) == {"format", "time", "runs", "unread"}
    assert {run["run"].split("-")[0] for run in value["runs"]} == {"going", "older"}
    assert all(set(run) == LISTED_FIELDS for run in value["runs"])


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_no_line_is_wider_than_the_terminal(running, moment, width):
    other = make(Made(items=600, tasks=3, bad=0.1, name="corpus-with-a-name"), moment)
    for view in (look_at(running), look_at(other)):
        for line in run_text.render(view, Terminal(width)):
            # Paths and commands stay whole, so that they can be copied.
            assert visible(line) <= width or "/data/" in line or "./voxarray" in line, line


def test_what_a_person_needs_is_said(running):
    text = " ".join("\n".join(run_text.render(look_at(running), Terminal(100))).split())
    assert "going-00000002 tone running, 4 tasks at work" in text
    assert re.search(r"\d[\d,]* done, \d+ quarantined, \d[\d,]* left, [\d.]+ h of [\d.]+ h of audio", text)
    assert re.search(r"× real time, about .* left", text)
    assert "failures:" in text
    assert "./voxarray status going-00000002 --watch" in text


def test_many_tasks_are_summed_up_and_the_odd_ones_shown(moment):
    maker = make(Made(items=4000, tasks=200, speed=5, until=100, silent={150: 30}, slow={77: 0.2}), moment)
    view = look_at(maker)
    lines = run_text.render(view, Terminal(100))
    assert len(lines) < 40
    assert any(line.startswith(" 150") and "silent" in line for line in lines)
    assert any(line.startswith("  77") and "slow" in line for line in lines)
    assert any("of 200 tasks are shown (--tasks: all)" in line for line in lines)
    assert len(run_text.render(view, Terminal(100), all_tasks=True)) > 200


def test_next_steps_fit_the_state(moment):
    maker = make(Made(items=2000, tasks=2, speed=20, until=200), moment)
    moment.now += 100
    assert [step.split()[1] for step in _steps(look_at(maker))] == ["logs", "cancel", "retry"]
    done = make(Made(items=20, tasks=2, name="done", bad=0.3), moment)
    assert _steps(look_at(done))[0] == "./voxarray retry done-00000001 --quarantined"


def _steps(view):
    from slurm.view.next_steps import commands

    return [command for command, _ in commands(view)]


def test_exit_status(running, moment, capsys):
    assert status.main(["going"]) == 0
    moment.now += 100
    assert status.main(["going"]) == 1
    make(Made(items=20, tasks=2, name="well"), moment)
    assert status.main(["well"]) == 0
    make(Made(items=20, tasks=2, name="ill", bad=1.0), moment)
    assert status.main(["ill"]) == 1
    with pytest.raises(UsageError):
        status.main(["nothing"])
    capsys.readouterr()


def test_all_runs_newest_first_and_no_runs(home, moment, capsys):
    assert status.main([]) == 0
    assert "There are no runs" in capsys.readouterr().out
    for name in ("first", "second"):
        folder = make(Made(items=20, tasks=2, name=name), moment).folder
        os.utime(folder, (1e9 + len(name), 1e9 + len(name)))
    status.main([])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("second-00000001  tone      merged")
    assert lines[2].startswith("first-00000001")


def test_a_damaged_plan_hides_no_other_run(home, moment, capsys):
    make(Made(items=20, tasks=2, name="good"), moment)
    bad = make(Made(items=20, tasks=2, name="bad"), moment)
    (bad.folder / "launch-000.json").write_text("{")
    assert status.main([]) == 0
    captured = capsys.readouterr()
    assert "good-00000001" in captured.out
    assert "launch-000.json" in captured.err


def _in_terminal(home: Path, *arguments: str, **variables: str) -> str:
    """What the command writes to a terminal, ended by Ctrl-C if it does not end by itself."""
    leader, follower = pty.openpty()
    environment = {
        **os.environ,
        "VOXARRAY_HOME": str(home),
        "PYTHONPATH": str(REPOSITORY),
        "TERM": "xterm",
        **variables,
    }
    environment = {name: value for name, value in environment.items() if value}
    command = [sys.executable, "-m", "slurm", "status", *arguments]
    process = subprocess.Popen(command, stdout=follower, stderr=follower, stdin=follower, env=environment)
    os.close(follower)
    seen, interrupted = b"", False
    while select.select([leader], [], [], 30)[0]:
        try:
            seen += os.read(leader, 65536)
        except OSError:
            break
        if b"Ctrl-C" in seen and not interrupted:
            interrupted = True
            process.send_signal(2)
    process.wait(timeout=180)
    os.close(leader)
    return seen.decode()


def test_colours_on_a_terminal_unless_they_are_not_wanted(home, moment):
    make(Made(items=20, tasks=2), moment)
    assert "\x1b[" in _in_terminal(home, "last", NO_COLOR="")
    assert "\x1b[" not in _in_terminal(home, "last", NO_COLOR="1")


def test_watch_keeps_the_screen_and_gives_it_back(home, moment):
    import time

    moment.now = time.time() - 200
    make(Made(items=2000, tasks=2, speed=20, until=200), moment)
    seen = _in_terminal(home, "last", "--watch", "0.2")
    assert seen.count("\x1b[?1049h") == seen.count("\x1b[?1049l") == 1
    assert seen.index("\x1b[?1049h") < seen.index("\x1b[H") < seen.index("\x1b[?1049l")
    assert "next" in seen[seen.index("\x1b[?1049l") :], "the last view stays on the screen"


def test_watching_a_run_that_is_over_ends_by_itself(home, moment):
    make(Made(items=20, tasks=2), moment)
    assert "Ctrl-C" not in _in_terminal(home, "last", "--watch")


def test_a_terminal_without_unicode(home, moment):
    make(Made(items=2000, tasks=2, speed=20, until=200), moment)
    seen = _in_terminal(home, "last", PYTHONIOENCODING="ascii", NO_COLOR="1")
    assert "#####" in seen
    assert "? real time" in seen
