"""fairseq's side of the comparison, made once: checkpoints, k-means and units of `fairseq_program.py`, imported."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import tempfile
import wave
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from pipelines.core.errors import DONE
from pipelines.core.paths import repository
from pipelines.units import models, options
from slurm import environments
from slurm.envs import interpreters
from slurm.envs.definition import find
from tests import corpus

VARIANTS = ("weight_norm", "batch_norm", "slow", "normalize")
LAYER = 12
PROMPTS, SHORT, LONG_S = 16, 300, 100


class Made(NamedTuple):
    """Where everything is: the checkpoints, the recordings (path by stem), and what the program says."""

    folder: Path
    waves: dict[str, Path]
    report: dict[str, Any]

    def found(self, variant: str, what: str, recording: str) -> np.ndarray:
        """`units` or `features` of a recording, by fairseq."""
        with np.load(self.folder / f"{variant}.npz") as arrays:
            return arrays[f"{what}/{recording}"]

    def original(self, variant: str) -> Path:
        return self.folder / f"{variant}.pt"


def reference_python() -> Path:
    """The Python that has fairseq; the test is skipped where this machine cannot have one."""
    if not environments.is_ready("sts"):
        if os.environ.get("CI") and interpreters.find(find("sts").pythons):
            pytest.fail("the environment sts is not there: `./voxarray test` makes it, see above why it could not")
        pytest.skip("fairseq is not here: `./voxarray env create sts` makes its environment (Python 3.9)")
    return environments.python("sts")


@functools.lru_cache(maxsize=1)
def made() -> Made:
    """Checkpoints in the true format, and what fairseq computes with them."""
    python = reference_python()
    try:
        speech = corpus.speech("en", PROMPTS, 20)
    except corpus.Missing as error:
        pytest.skip(str(error))
    folder = Path(tempfile.mkdtemp(prefix="voxarray-fairseq-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    waves = {f"{number:02d}-{path.stem}": path for number, path in enumerate(speech)}
    waves |= _odd(folder, speech)
    named = []
    for name, path in waves.items():
        link = folder / f"{name}.wav"
        if not link.exists():
            link.symlink_to(path)
        named.append(link)
    run(python, repository() / "tests" / "units" / "fairseq_program.py", folder, *named)
    report = json.loads((folder / "report.json").read_text())
    return Made(folder, {path.stem: path for path in named}, report)


def _odd(folder: Path, speech: list[Path]) -> dict[str, Path]:
    """A recording of 100 s and 200 samples: its tail is too short for a frame, which textlesslib dies of."""
    whole = np.concatenate([corpus.read_wave(path) for path in speech * 3])
    path = folder / "long.wav"
    write(path, whole[: LONG_S * corpus.RATE + 200])
    return {"long": path}


def write(path: Path, samples: np.ndarray) -> None:
    """A mono WAVE file at 16 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(corpus.RATE)
        file.writeframes(np.asarray(samples, "<i2").tobytes())


def run(python: Path, *arguments: Any, **variables: str) -> None:
    """Run a program of the tests in another environment; its messages when it fails."""
    environment = {**os.environ, "PYTHONPATH": str(repository()), "PYTHONNOUSERSITE": "1", **variables}
    done = subprocess.run(
        [str(python), *map(str, arguments)], env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]


def import_variant(variant: str) -> None:
    """Import a variant and its codebook through the command, unless they are there; the reference finds its files."""
    from pipelines.units import importing

    folder = made().folder
    if models.exists(f"{variant}-kmeans"):
        return
    imported = importing.main(["hubert", str(folder / f"{variant}.pt"), "--name", variant])
    assert imported == DONE
    arguments = ["kmeans", str(folder / f"{variant}.km.bin"), "--name", f"{variant}-kmeans"]
    assert importing.main([*arguments, "--dense-model", variant, "--layer", str(LAYER)]) == DONE


def waves(variant: str) -> dict[str, Path]:
    """The recordings that fairseq encoded."""
    return {name: path for name, path in made().waves.items() if name != "long" or variant == "normalize"}


def parameters(variant: str, backend: str = "native", chunking: str = "textless") -> dict[str, Any]:
    """Those of a run."""
    chosen = options.of_units(f"{variant}-kmeans")
    return {**chosen, "backend": backend, "precision": "fp32", "chunking": chunking, "chunk_s": 100.0}
