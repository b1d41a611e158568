"""One chain in the weather: started, disturbed, taken up again by its command alone, and proven."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

from cluster import Cluster
from processes import ClusterError, wait_until
from proof import RunFiles
from scene import REPOSITORY, variables

from ordeal.weather import Weather
from tests import corpus as recordings

ITEMS = 30
CODEBOOK = "logmel-kmeans-8"
RECIPE = """
title = "The ordeal's chain"
[values]
recordings = { path = true }
codebook = { path = true }
[[step]]
name = "vad"
run = "vad {recordings} {metadata}/corpus"
[[step]]
name = "units"
run = "encode {vad.manifest} corpus --units {codebook} --root {recordings}"
[[step]]
name = "speech"
run = "sts {vad.manifest} said --units {codebook} --root {recordings}"
"""
COMPARED = ("metadata/corpus*", "output/corpus/units/*.npy", "output/said/**/*")
LEFT_BEHIND = (".tmp", ".inflight", ".journal")
BAD = 1
_STEPS = 3
_BATCH = 8
"""Items that an attempt may have in flight."""


class Prepared(NamedTuple):
    """What all rounds share: recordings, a codebook, the recipe, and what an undisturbed chain makes of them."""

    data: Path
    files: List[Path]
    codebook: Path
    recipe: Path
    expected: Dict[str, bytes]


def prepare(root: Path) -> Prepared:
    """Recordings, codebook, and the undisturbed chain on this machine."""
    data, files = root / "corpus", []
    for number, path in enumerate(recordings.speech("en", ITEMS, longest=3.0)):
        files.append(data / f"s{number % 3}" / f"{number:03d}.wav")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, files[-1])
    (data / "s0" / "empty.wav").touch()
    recipe = root / "ordeal.toml"
    recipe.write_text(RECIPE)
    home = root / "undisturbed"
    home.mkdir()
    env = {**os.environ, **variables(home), "VOXARRAY_DEVICE": "cpu"}
    manifest = root / "fit.json"
    rows = [{"audio_filepath": str(path), "duration": len(recordings.read_wave(path)) / 16000} for path in files]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _done([sys.executable, "-m", "pipelines.kmeans", str(manifest), CODEBOOK, "--clusters", "8"], env, 0)
    codebook = home / "output" / "models" / CODEBOOK
    values = [f"recordings={data}", f"codebook={codebook}"]
    _done([str(REPOSITORY / "voxarray"), "run", str(recipe), *values, "--cluster", "local"], env, 1)
    return Prepared(data, files, codebook, recipe, contents(home))


def _done(argv: List[str], env: Dict[str, str], status: int) -> None:
    done = subprocess.run(argv, env=env, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == status, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"


def contents(home: Path) -> Dict[str, bytes]:
    """What a chain has made in a home, its own path taken out; times and provenance are not among it."""
    found = {}
    for pattern in COMPARED:
        for path in home.glob(pattern):
            if path.is_file() and not path.name.startswith(".") and ".bak" not in path.name:
                found[str(path.relative_to(home))] = path.read_bytes().replace(str(home).encode(), b"HOME")
    return found


class Round:
    """A chain in a home of its own on the cluster, in a partition and over a number of tasks that the die chooses."""

    def __init__(self, cluster: Cluster, home: Path, prepared: Prepared, die: random.Random) -> None:
        self.cluster, self.home, self.prepared, self.die = cluster, home, prepared, die
        home.mkdir(parents=True)
        self.partition = die.choice(["main", "low", "lowgrace"])
        self.tasks = die.choice([2, 3, 4])
        self.has_sacct = die.random() < 0.6
        self.weather = Weather(cluster, home, prepared.files, self.start, die)

    def _env(self) -> Dict[str, str]:
        env = {**self.cluster.environment(), **variables(self.home), "VOXARRAY_DEVICE": "cpu"}
        if not self.has_sacct:
            env["PATH"] = self.cluster.path_without_sacct(env["PATH"])
        return env

    def _argv(self, *words: str) -> List[str]:
        return [str(REPOSITORY / "voxarray"), *words]

    def start(self) -> Any:
        """The chain's command, as a user gives it; it does not wait for the chain."""
        values = [f"recordings={self.prepared.data}", f"codebook={self.prepared.codebook}"]
        how = ["--cluster", "slurm", "--tasks", str(self.tasks), "--partition", self.partition]
        argv = self._argv("run", str(self.prepared.recipe), *values, *how)
        with (self.home.parent / f"{self.home.name}.commands").open("ab") as file:
            return subprocess.Popen(argv, env=self._env(), cwd=self.home, stdout=file, stderr=file)

    def voxarray(self, *words: str) -> int:
        """Another command of a user's; its exit status."""
        done = subprocess.run(self._argv(*words), env=self._env(), cwd=self.home, check=False, timeout=180)
        return done.returncode

    def _links(self) -> Dict[str, Any]:
        for path in self.home.glob("output/chains/*/state.json"):
            try:
                return json.loads(path.read_text())["links"]
            except (OSError, ValueError):
                return {}
        return {}

    def state(self) -> Dict[str, Any]:
        """Steps and their states, as `status` would read them."""
        return {name: link["state"] for name, link in self._links().items()}

    def is_done(self) -> bool:
        states = self.state()
        return bool(states) and set(states.values()) == {"done"}

    def storm(self, faults: int, every_s: float = 0.5) -> int:
        """Start the chain, and let so many faults hit it, or fewer where it is done before; how many did."""
        self.start().wait(timeout=180)
        self.weather.slow(0.35)
        hits, idle_since = 0, time.monotonic()
        while hits < faults and not self.is_done():
            hits += self.weather.blow()
            time.sleep(self.die.uniform(0, 2 * every_s))
            if self.cluster.squeue():
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > 2:  # nothing goes on by itself any more: its user sees that
                self.weather.started.append(self.start())
                idle_since = time.monotonic()
        self.weather.calm()
        return hits

    def settle(self) -> int:
        """Give the chain's command after the storm, and nothing else; how often it took.

        Once, for nothing disturbs it any more, and recordings that were away while the directory was listed are back;
        then once more for each step whose recordings were away so often in the storm that they were given up.
        """
        self._wait_for_jobs()
        for number in range(1, 2 + _STEPS):
            self._pardon()
            self.start().wait(timeout=180)
            self._wait_for_jobs()
            if not self._given_up():
                assert self.is_done(), f"nothing disturbed it, and it is not done: {self._links()}"
                self.cluster.ghosts_end()
                return number
        raise ClusterError(f"recordings that are there were given up: {self._links()}")

    def _wait_for_jobs(self) -> None:
        wait_until(lambda: not self.cluster.squeue(), 600, "the queue to empty", 0.3)

    def runs(self) -> Dict[str, RunFiles]:
        found = {}
        for path in self.home.glob("output/runs/*/run.json"):
            found[json.loads(path.read_text())["pipeline"]] = RunFiles(path.parent)
        return found

    def _given_up(self) -> List[RunFiles]:
        """Runs that gave up recordings which are whole."""
        bad = {"vad": BAD}
        return [run for name, run in self.runs().items() if run.receipt().get("quarantined", 0) > bad.get(name, 0)]

    def _pardon(self) -> None:
        """Files that were away for too long were given up; they are back, so their runs are retried."""
        for run in self._given_up():
            argv = self._argv("retry", run.id, "--quarantined", "--cluster", "slurm", "--partition", self.partition)
            subprocess.run(argv, env=self._env(), cwd=self.home, capture_output=True, check=False, timeout=180)
            self._wait_for_jobs()

    def prove(self) -> Counter:
        """Conservation, the bytes of an undisturbed chain, nothing left behind, nothing needlessly done twice."""
        counts: Counter = Counter()
        runs = self.runs()
        assert len(runs) == _STEPS, sorted(runs)
        for name, run in runs.items():
            receipt = run.receipt()
            total = receipt["merged"] + receipt["quarantined"] + receipt["missing"]
            assert receipt["items"] == total, (name, receipt)
            assert not receipt["partial"] and not receipt["differing"], (name, receipt)
            assert not receipt["missing"], (name, receipt)
            counts["done twice"] += sum(number - 1 for number in run.done().values())
            counts["items"] += receipt["items"]
        ghosts = self.weather.counts["split brain"] + self.weather.counts["controller restart"]
        assert counts["done twice"] <= _BATCH * ghosts, (counts, self.weather.counts)
        ours = contents(self.home)
        assert sorted(ours) == sorted(self.prepared.expected), sorted(set(ours) ^ set(self.prepared.expected))
        different = [name for name, data in ours.items() if data != self.prepared.expected[name]]
        assert not different, different
        left = [str(path) for path in self.home.rglob("*") if path.name.endswith(LEFT_BEHIND)]
        assert not left, left
        return counts
