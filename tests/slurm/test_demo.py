"""`./voxarray demo` as its user gives it, the whole chain, on four of its twelve recordings: and then once more."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Dict

import pytest
from proof import RunFiles
from scene import REPOSITORY, variables

from slurm import environments

SPEAKER = "ben"
STEPS = 7
TRIED = ("./voxarray demo YOUR_RECORDINGS", "./voxarray run --list", "./voxarray vad YOUR_RECORDINGS --tasks 16")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home in which the demo's corpus is made already, and is one speaker's."""
    if not environments.is_ready("demo"):
        pytest.skip("the environment demo is not made")
    made, corpus = tmp_path / "made", tmp_path / "home" / "output" / "demo" / "corpus"
    subprocess.run([environments.python("demo"), REPOSITORY / "slurm" / "voice.py", made], check=True)
    shutil.copytree(made / SPEAKER, corpus / SPEAKER)
    rows = (made / "transcripts.json").read_text().splitlines(keepends=True)
    (corpus / "transcripts.json").write_text("".join(row for row in rows if f'"{SPEAKER}/' in row))
    (corpus / "ABOUT.txt").write_text("Synthetic: one voice.\n")
    return tmp_path / "home"


def demo(home: Path) -> str:
    """`./voxarray demo` on the processor; all that it printed."""
    env = {**os.environ, **variables(home), "VOXARRAY_DEVICE": "cpu"}
    argv = [str(REPOSITORY / "voxarray"), "demo"]
    done = subprocess.run(argv, env=env, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    return done.stdout


def results(home: Path) -> Dict[Path, int]:
    """What items were made into, and when: parts, recordings, models. A merge may put parts together anew."""
    kinds = ("runs/*/parts/**/*.jsonl", "*/**/*.wav", "checkpoints/**/*.safetensors")
    return {path: path.stat().st_mtime_ns for kind in kinds for path in home.glob(f"output/{kind}")}


def test_the_whole_demo_and_again(home):
    said = demo(home)
    page = Path(re.search(r"The report, with items to listen to: (.+)", said)[1])
    assert page.read_text().count('<h1 class="step"') == STEPS
    wrong, words = re.search(r"Word error rate: ([\d.]+) % of (\d+) words", said).groups()
    truth = (home / "output" / "demo" / "corpus" / "transcripts.json").read_text().splitlines()
    assert int(words) == sum(len(json.loads(row)["text"].split()) for row in truth)
    assert 0 < float(wrong) < 150, "of synthetic voices that differ from day to day"
    (board,) = home.glob("output/checkpoints/*/leaderboard.json")
    bits = float(re.search(r"Language model: ([\d.]+) bits a unit in validation", said)[1])
    assert bits == pytest.approx(json.loads(board.read_text().splitlines()[0])["bits_per_unit"], abs=0.006)
    spoken = [Path(folder) for folder in re.findall(r"(?:recordings and|that nobody said, spoken:) (\S+)", said)]
    assert [len(list(folder.rglob("*.wav"))) for folder in spoken] == [len(truth), 3]
    assert all(command in said for command in TRIED)

    before = results(home)
    assert demo(home).splitlines()[-20:] == said.splitlines()[-20:], "the same is told"
    assert results(home) == before, "nothing is done anew"
    for folder in home.glob("output/runs/*"):
        run = RunFiles(folder)
        assert set(run.done().values()) == {1}, run.id
        assert len(run.launches()) == 1, run.id
