"""One training in several processes: stopped together, ended together, told what went wrong, outliving nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.lm import several
from pipelines.lm.processor import PROCESSES
from tests.core.world import REPOSITORY
from tests.lm import making
from tests.lm.test_resume import command, metrics, wait_for


@pytest.fixture
def manifest(stage):
    _, drawn = making.sequences(200)
    path, _ = making.write(stage.root / "data", drawn, 12)
    stage.variables[PROCESSES] = "2"
    return path


def test_stopped_together_and_ended_together(stage, manifest):
    checkpoints = stage.home / "output" / "checkpoints"
    process = command(stage, manifest, "--num-epochs", "20")
    wait_for(lambda: list(checkpoints.glob("*/*/last.pt")), 120)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=180)
    assert process.returncode == 1
    assert not list(checkpoints.glob("*/*/metrics.json"))
    last = command(stage, manifest, "--num-epochs", "20")
    said, _ = last.communicate(timeout=180)
    assert last.returncode == 0, said
    found, _ = metrics(stage)
    assert [entry["epoch"] for entry in found["history"]] == list(range(1, 21))
    assert any("Going on from step" in path.read_text() for path in stage.home.glob("logs/**/task_0000.log"))


def test_what_went_wrong_is_told(stage, manifest):
    units = stage.root / "data" / "units" / "units-00000.npy"
    data = bytearray(units.read_bytes())
    data[-2:] = (999).to_bytes(2, "little")
    units.write_bytes(bytes(data))
    process = command(stage, manifest)
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 2
    assert "has the unit 999" in said


SLEEPER = "import sys, pathlib, os, time\npathlib.Path(sys.argv[1], str(os.getpid())).touch()\ntime.sleep(60)\n"


def of(folder, code):
    """A program that runs `code` twice, side by side."""
    (folder / "sleeper.py").write_text(code)
    (folder / "pids").mkdir()
    start = f"from pipelines.lm import several; from pathlib import Path; import sys\n\
sys.exit(several.run('sleeper', Path({str(folder / 'pids')!r}), 2, lambda: False))"
    env = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{folder}"}
    return subprocess.Popen([sys.executable, "-c", start], env=env)


def test_no_process_outlives_the_one_that_started_it(tmp_path):
    parent = of(tmp_path, SLEEPER)
    wait_for(lambda: len(list((tmp_path / "pids").iterdir())) == 2)
    pids = [int(path.name) for path in (tmp_path / "pids").iterdir()]
    parent.kill()
    parent.wait()
    wait_for(lambda: not any(is_alive(pid) for pid in pids))


def is_alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_when_one_dies_the_others_do_not_wait_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(several, "_PATIENCE_S", 0.5)
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}:{tmp_path}")
    (tmp_path / "one_dies.py").write_text(
        "import os, time\nos.environ['RANK'] == '1' and os._exit(3)\ntime.sleep(600)\n"
    )
    began = time.monotonic()
    assert several.run("one_dies", tmp_path, 2, lambda: False) != 0
    assert time.monotonic() - began < 300
