"""The tiny recognisers of the tests: built once by the code beside, in the environment asr, and kept in the cache.

Any environment may ask for one: `models.built("ctc")`. They lie beside the decoded speech, in a folder named after the
digest of the code that makes them and of the environment's lock, so that a change of either makes them anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

from pipelines.core.paths import repository
from tests import corpus
from tests.asr import prompts

TOGETHER = (
    ("salm",), ("ctc",), ("wav2vec2",), ("rnnt", "tdt", "hybrid", "aed", "aed-aligned"),
    ("wav2vec2-layer", "hubert", "whisper"),
)  # fmt: skip
"""What one process builds: the trained models each by themselves; the others take less time than importing NeMo."""
KINDS = tuple(kind for group in TOGETHER for kind in group)
_MADE_BY = ("made_nemo.py", "made_salm.py", "made_transformers.py", "models.py", "prompts.py", "training.py")


def known():
    """The 48 prompts that the trained models know by heart."""
    return prompts.prompts(0.6, 2.6, 48)


def few(kind="ctc"):
    """Those of them that a trained CTC model knows: the first 24, and wav2vec 2.0, which learns from the wave, 12."""
    return known()[: 12 if kind == "wav2vec2" else 24]


def built(kind):
    """What a model is loaded from: a folder, or a .nemo file. Raises corpus.Missing where there is no environment."""
    target = _home() / kind
    if not (target / "done").exists():
        _ensure(kind)
    return target / (target / "done").read_text()


def salm_complete():
    """The SALM in one folder, with its language model's tokenizer and config."""
    return built("salm").parent / "complete"


@lru_cache(maxsize=1)
def _home():
    digest = hashlib.sha256((repository() / "envs" / "asr.lock").read_bytes())
    for name in _MADE_BY:
        digest.update((Path(__file__).parent / name).read_bytes())
    return corpus.cache() / "asr" / digest.hexdigest()[:16]


def python():
    """The interpreter of the environment asr. Raises corpus.Missing."""
    if importlib.util.find_spec("nemo") is not None:
        return Path(sys.executable)
    from slurm.envs import places
    from slurm.envs.definition import find

    definition = find("asr")
    prefix = places.prefix(definition)
    if not places.is_current(prefix, definition):
        raise corpus.Missing("the environment asr is not here: ./voxarray env create asr")
    return places.python(prefix)


def _ensure(kind):
    """Build a model, and those that are built with it, unless another process does so meanwhile."""
    interpreter = python()
    group = next(each for each in TOGETHER if kind in each)
    _home().mkdir(parents=True, exist_ok=True)
    with (_home() / f"{group[0]}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (_home() / kind / "done").exists():
            return
        # one thread: the same weights whatever the number of cores
        environment = {**os.environ, "PYTHONPATH": str(repository()), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [str(interpreter), "-m", "tests.asr.models", str(_home()), *group],
            cwd=repository(), env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"the model {kind} could not be built:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")


def build(kind, target):
    """Build a model in a private folder, and give it its name."""
    private = Path(tempfile.mkdtemp(prefix=f".{kind}.", dir=target.parent))
    try:
        name = _build(kind, private)
        (private / "done").write_text(name)
        shutil.rmtree(target, ignore_errors=True)
        private.rename(target)
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _build(kind, folder):
    """Build a model into a folder; what in it is to be loaded."""
    if kind == "salm":
        from tests.asr import made_salm

        made_salm.build(folder, known())
        made_salm.complete(folder, folder / "complete")
        return "model"
    if kind == "aed-aligned":
        from tests.asr import made_nemo

        made_nemo.with_aligner(folder.parent / "aed" / "model.nemo", built("ctc"), folder / "model.nemo")
        return "model.nemo"
    if kind in ("wav2vec2", "wav2vec2-layer", "hubert", "whisper"):
        from tests.asr import made_transformers as made

        if kind == "whisper":
            made.whisper(folder / "model")
        elif kind == "wav2vec2":
            made.wav2vec2(folder / "model", few("wav2vec2"))
        else:
            made.wav2vec2(folder / "model", norm="layer" if kind == "wav2vec2-layer" else "group",
                          kind="hubert" if kind == "hubert" else "wav2vec2")  # fmt: skip
        return "model"
    from tests.asr import made_nemo

    made_nemo.build(kind, folder, few(), None if kind == "ctc" else built("ctc"))
    return "model.nemo"


if __name__ == "__main__":
    for each in sys.argv[2:]:
        build(each, Path(sys.argv[1]) / each)
