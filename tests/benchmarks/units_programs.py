"""Programs that are compared, each in its own environment and process, on one core with one thread: `units_speed`'s.

    python units_programs.py PROGRAM SETTINGS.json

A program loads its model, answers `ready`, and then, for each line of paths (JSON) on standard input, works through
those files and answers with the processor seconds it took and what it found (a digest and a count).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

REPOSITORY = Path(__file__).resolve().parents[2]
Work = Callable[[List[str]], Tuple[int, bytes]]
"""Takes files to their end; the number of results, and their bytes."""


class Program:
    """A program at work in another process."""

    def __init__(self, python: Path, name: str, settings: Path, path: str = "", script: str = __file__) -> None:
        """`path`: folders that its Python imports from; `script`: the file that has the program."""
        folders = os.pathsep.join(filter(None, [str(REPOSITORY), path]))
        environment = {**os.environ, "PYTHONPATH": folders, "PYTHONNOUSERSITE": "1", "OMP_NUM_THREADS": "1"}
        environment.update(MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", VOXARRAY_DEVICE="cpu")
        self.name = name
        self._process = subprocess.Popen(
            [str(python), script, name, str(settings)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=REPOSITORY,
        )  # fmt: skip
        self.versions: Dict[str, str] = self._answer()

    def __call__(self, files: List[str]) -> Dict[str, Any]:
        """Work through the files: `seconds`, `count`, `digest`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(files) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> Dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the program {self.name} ended with exit status {self._process.wait()}")
        return json.loads(line)


def turns(programs: Dict[str, Program], files: List[str], rounds: int) -> Dict[str, List[float]]:
    """Processor seconds of each program in each round, taken in turns."""
    found: Dict[str, List[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            found[name].append(program(files)["seconds"])
    return found


# -- inside the process


def native_encode(settings: Dict[str, Any]) -> Work:
    """`pipelines.units.encoder`, as the pipeline encode calls it on a CPU."""
    from pipelines.units import encoder

    coder = encoder.load(settings["parameters"])
    return lambda files: _joined(coder.encode([_read(path)])[0] for path in files)


def fairseq_encode(settings: Dict[str, Any]) -> Work:
    """`pipelines.units.reference`: fairseq file by file."""
    from pipelines.units.reference import ReferenceEncoder

    coder = ReferenceEncoder.load(settings["parameters"])
    return lambda files: _joined(coder.encode([_read(path)])[0] for path in files)


def textless_encode(settings: Dict[str, Any]) -> Work:
    """textlesslib itself, its pitch left out."""
    import torch
    from textless.data.hubert_feature_reader import HubertFeatureReader
    from textless.data.kmeans_quantizer import KMeansQuantizer
    from textless.data.speech_encoder import SpeechEncoder

    dense = HubertFeatureReader(settings["checkpoint"], layer=settings["parameters"]["layer"])
    coder = SpeechEncoder(dense, KMeansQuantizer(settings["kmeans"]), deduplicate=False, need_f0=False)
    return lambda files: _joined(
        coder(torch.from_numpy(_read(path)))["units"].numpy().astype("uint16") for path in files
    )


def native_vocoder(settings: Dict[str, Any]) -> Work:
    """`pipelines.units.synthesis`."""
    import numpy as np

    from pipelines.units import synthesis

    voice = synthesis.load(settings["parameters"])
    return lambda files: _joined(voice.speak([np.load(path)])[0] for path in files)


def fairseq_vocoder(settings: Dict[str, Any]) -> Work:
    """fairseq's CodeHiFiGAN (with the table of styles that it lacks), or textlesslib's where that is there."""
    import numpy as np

    from pipelines.units.reference import ReferenceSynthesiser

    voice = ReferenceSynthesiser.load(settings["parameters"])
    return lambda files: _joined(voice.speak([np.load(path)])[0] for path in files)


def write_kmeans(settings: Dict[str, Any]) -> Work:
    """Not a contestant: writes a k-means around the centroids, by an old scikit-learn as the published ones."""
    import joblib
    import numpy as np
    from sklearn.cluster import MiniBatchKMeans

    centroids = np.load(settings["centroids"])
    kmeans = MiniBatchKMeans(n_clusters=len(centroids), n_init=1, random_state=0)
    kmeans.fit(np.repeat(centroids, 2, axis=0))
    kmeans.cluster_centers_ = centroids
    joblib.dump(kmeans, settings["kmeans"])
    return lambda files: (len(files), b"")


def _read(path: str) -> Any:
    import soundfile

    return soundfile.read(path, dtype="float32")[0]


def _joined(found: Any) -> Tuple[int, bytes]:
    results = [each.tobytes() for each in found]
    return len(results), b"".join(results)


def serve(programs: Dict[str, Any], name: str, settings: Path) -> None:
    """Be one of the programs: answer each line of standard input."""
    import torch

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    work: Work = programs[name](json.loads(settings.read_text()))
    torch.set_num_threads(1)
    print(json.dumps({"python": sys.version.split()[0], "torch": torch.__version__}), file=answers, flush=True)
    for line in sys.stdin:
        begun = time.process_time()
        count, data = work(json.loads(line))
        took = time.process_time() - begun
        digest = hashlib.sha256(data).hexdigest()
        print(json.dumps({"seconds": took, "count": count, "digest": digest}), file=answers, flush=True)


if __name__ == "__main__":
    serve(globals(), sys.argv[1], Path(sys.argv[2]))
