"""A home folder, a corpus and a cluster: what the tests of VAD on a real Slurm stand on."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Collection, Dict, Iterator, List, Optional

from brake import Brake, hold
from cluster import Cluster
from processes import ClusterError, command_of, environment_of, wait_until
from proof import Reference, RunFiles, prove

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = {
    "VOXARRAY_PART_ITEMS": "2",  # parts come early, so that there is something to lose and something to keep
    "VOXARRAY_HEARTBEAT_S": "1",
}


def variables(home: Path) -> Dict[str, str]:
    """Environment of a user whose home is `home`, and whose active Python is the tests' own."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**SETTINGS, "VOXARRAY_HOME": str(home), "PYTHONPATH": str(REPOSITORY), "PATH": path}


class Scene:
    """Runs VAD over the corpus in every way a user may, and proves what came of it."""

    def __init__(self, cluster: Cluster, home: Path, corpus: Path, reference: Reference) -> None:
        self.cluster, self.home, self.corpus, self.reference = cluster, home, corpus, reference
        home.mkdir(parents=True, exist_ok=True)

    def stem(self, name: str) -> Path:
        """The outputs of a run, which also names it."""
        return self.home / "metadata" / name

    def sbatch(self, name: str, *options: str, after: str = "", cpus: int = 1) -> str:
        """`sbatch OPTIONS slurm/vad.slurm CORPUS STEM AFTER`; returns the job's id."""
        script = [str(REPOSITORY / "slurm" / "vad.slurm"), str(self.corpus), str(self.stem(name)), *after.split()]
        argv = ["sbatch", "--parsable", f"--cpus-per-task={cpus}", *options, *script]
        return self._call(argv, [0], sacct=True).stdout.strip()

    def voxarray(
        self, *arguments: str, statuses: Optional[List[int]] = None, sacct: bool = True, **settings: str
    ) -> str:
        """`./voxarray ARGUMENTS`, from a folder that has nothing to do with it; returns all that it printed."""
        done = self._call([str(REPOSITORY / "voxarray"), *arguments], statuses or [0], sacct, **settings)
        return done.stdout + done.stderr

    def launch(self, name: str, *options: str, **how: Any) -> str:
        """`./voxarray vad CORPUS STEM --cluster slurm OPTIONS`."""
        what = ["vad", str(self.corpus), str(self.stem(name)), "--cluster", "slurm", "--cpus", "1"]
        return self.voxarray(*what, *options, **how)

    def _call(self, argv: List[str], statuses: List[int], sacct: bool, **settings: str) -> subprocess.CompletedProcess:
        env = {**self.cluster.environment(), **variables(self.home), **settings}
        if not sacct:
            env["PATH"] = self.cluster.path_without_sacct(env["PATH"])
        done = subprocess.run(argv, capture_output=True, text=True, env=env, cwd=self.home, check=False)
        if done.returncode not in statuses:
            raise ClusterError(f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def run(self, name: str) -> RunFiles:
        """The files of the run with that stem, once it has been made."""
        runs = self.home / "output" / "runs"
        wait_until(lambda: len(list(runs.glob(f"{name}-????????/run.json"))) == 1, 90, f"the run {name} to be made")
        return RunFiles(next(runs.glob(f"{name}-????????")))

    @contextmanager
    def held(self, **tasks: Collection[int]) -> Iterator[List[Brake]]:
        """Hold these tasks of the runs of these names in the middle of their work; a brake for each run."""
        runs = self.home / "output" / "runs"
        brakes = [Brake(self.cluster.processes, runs, name) for name in tasks]
        try:
            hold(dict(zip(brakes, tasks.values())))
            yield brakes
        finally:
            for brake in brakes:
                brake.release()

    def pids(self, job: str, task: int, word: str) -> List[int]:
        """Processes of one array task whose command line has that word."""
        ours = {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": str(task)}
        pids = [pid for pid in self.cluster.processes.jobs() if word in command_of(pid)]
        return [pid for pid in pids if ours.items() <= environment_of(pid).items()]

    def wait_for_merge(self, name: str, timeout_s: float = 240) -> None:
        """Wait until the run has been merged."""
        wait_until(lambda: bool(self.run(name).receipt()), timeout_s, f"the merge of {name}", 0.1)

    def prove(self, name: str) -> RunFiles:
        """The proof, from the files; see proof.py."""
        run = self.run(name)
        prove(run, self.stem(name), self.corpus, self.reference)
        return run

    def describe(self) -> str:
        """The logs of everything that ran here."""
        logs = sorted(path for path in self.home.glob("logs/**/*") if path.suffix in (".out", ".log"))
        texts = ((path, path.read_text(errors="replace")[-1200:]) for path in logs)
        return "\n".join(f"--- {path.relative_to(self.home)}\n{text}" for path, text in texts if text)[-20000:]
