"""A run of the engine itself, looked at while it works, after it was killed, and when it is done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import pytest

from pipelines.core.run import Run
from slurm import find
from slurm.view import page, report_data
from slurm.view.standing import Looker, Standing

REPOSITORY = Path(__file__).resolve().parents[2]
START = "import sys; from pipelines.core import cli, registry; sys.exit(cli.main(registry.find('tone'), sys.argv[1:]))"


@pytest.fixture
def start(home, monkeypatch) -> Callable[[str], subprocess.Popen]:
    """Start the toy pipeline over 60 items and two tasks, with that nap an item."""
    monkeypatch.setenv("VOXARRAY_PIPELINES", str(REPOSITORY / "tests" / "toys"))
    monkeypatch.setenv("VOXARRAY_HEARTBEAT_S", "0.2")
    manifest = home / "speech.json"
    rows = [{"audio_filepath": f"/data/{number}.wav", "duration": 2.0} for number in range(60)]
    rows[7]["raise"] = "no speech in /data/7.wav"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def start(nap: str) -> subprocess.Popen:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TOY_NAP": nap, "PATH": "/usr/bin:/bin"}
        command = [sys.executable, "-c", START, str(manifest), "--tasks", "2"]
        return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)

    return start


def wait_for(condition: Callable[[Standing], bool], seconds: float = 30) -> Standing:
    looker, deadline = Looker(), time.monotonic() + seconds
    view = None
    while time.monotonic() < deadline:
        if find.plans():
            view = looker.look(find.run("last"))
            if condition(view):
                return view
        time.sleep(0.1)
    raise AssertionError(f"it never came to that; the last state was {view and view.state}")


def kill_all(process: subprocess.Popen) -> None:
    """Kill the process; its worker asks the kernel to die with it."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_from_the_first_item_to_the_merge(start):
    process = start("0.1")
    view = wait_for(lambda view: view.done >= 4)
    assert view.state == "running"
    assert view.tasks[0].alive
    assert view.eta_s > 1
    kill_all(process)
    view = wait_for(lambda view: view.state == "incomplete")
    assert view.tasks[0].state == "died"
    assert view.left > 0
    page.page(report_data.gather(view.run))

    assert start("0").wait() == 1, "one item is quarantined"
    view = wait_for(lambda view: view.state == "merged")
    assert (view.items, view.done, view.quarantined, view.left) == (60, 59, 1, 0)
    assert view.failures.causes[0].examples[0].path == "/data/7.wav"
    assert view.audio_seconds == pytest.approx(118)
    source = page.page(report_data.gather(Run.open(view.run.id)))
    assert "60 items" in source
    assert "59 merged" in source
