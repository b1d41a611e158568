"""The programs that `vad_speed` compares: each from files to statistics, on one core, timed in processor time."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable

import msgspec
import numpy as np

from pipelines.audio.read import read
from pipelines.core.manifest import parse
from pipelines.core.pipeline import Resources
from pipelines.vad import load
from pipelines.voice.ten import _path as ten_library

PARAMETERS = {
    "onset": 0.5,
    "offset": 0.5,
    "min_speech": 0.0,
    "min_silence": 0.0,
    "pad_onset": 0.0,
    "pad_offset": 0.0,
    "max_segment": None,
    "rttm": False,
}
Program = Callable[[list[Path]], float]
"""Takes files to their end; gives the seconds of processor time it took."""


# -- the straightforward program


def _straightforward_file(path: str) -> dict:
    """As the seed program does it: soundfile, floats to integers, TenVad.process hop by hop, statistics by numpy."""
    import soundfile
    from ten_vad import TenVad

    network = TenVad(hop_size=256, threshold=0.5)
    data, rate = soundfile.read(path, dtype="float32")
    data = (data * 32767).astype(np.int16)
    count = len(data) // 256
    frames = data[: count * 256].reshape(-1, 256)
    flags = np.empty(count, dtype=np.uint8)
    for number in range(count):
        _, flags[number] = network.process(frames[number])
    edges = np.r_[0, np.flatnonzero(np.diff(flags)) + 1, count]
    seconds = np.diff(edges) * (256 / rate)
    spoken, silent = (seconds[::2], seconds[1::2]) if flags[0] else (seconds[1::2], seconds[::2])
    row = {"audio_filepath": path, "duration": len(data) / rate, "spch-ratio": float(flags.mean())}
    for name, some in (("spoken", spoken), ("nospch", silent)):
        row["max-" + name] = float(some.max()) if some.size else 0.0
        row["min-" + name] = float(some.min()) if some.size else 0.0
        row["avg-" + name] = float(some.mean()) if some.size else 0.0
    return row


def _processor_time(_: object) -> float:
    return time.process_time()


class Straightforward:
    """A multiprocessing pool of one worker, started beforehand: its start is not counted."""

    def __init__(self) -> None:
        self._pool = multiprocessing.get_context("forkserver").Pool(1)

    def __call__(self, files: list[Path]) -> float:
        [worker], parent = self._pool.map(_processor_time, [0]), time.process_time()
        rows = list(self._pool.imap_unordered(_straightforward_file, map(str, files)))
        assert len(rows) == len(files)
        [end] = self._pool.map(_processor_time, [0])
        return end - worker + time.process_time() - parent

    def close(self) -> None:
        self._pool.terminate()


# -- the pure C loop


class Loop:
    """The C program beside this file, compiled for the occasion."""

    def __init__(self) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise SystemExit("No C compiler: apt-get install gcc libc6-dev")
        library = ten_library()
        self._folder = tempfile.TemporaryDirectory()
        self._program = str(Path(self._folder.name) / "loop")
        source = str(Path(__file__).with_name("vad_loop.c"))
        run_path = f"-Wl,-rpath,{library.parent}"
        subprocess.run([compiler, "-O2", source, str(library), run_path, "-o", self._program], check=True)

    def __call__(self, files: list[Path]) -> float:
        done = subprocess.run([self._program, *map(str, files)], capture_output=True, text=True, check=True)
        return float(done.stdout.split()[0])

    def close(self) -> None:
        self._folder.cleanup()


# -- ours


class Ours:
    """The pipeline's processor in batches of its own size, each result encoded as the engine publishes it."""

    def __init__(self, engine: str) -> None:
        self._processor = load({**PARAMETERS, "engine": engine}, Resources(cpus=1))
        self._encode = msgspec.json.Encoder().encode

    def __call__(self, files: list[Path]) -> float:
        items = [parse(0, self._encode({"audio_filepath": str(path)})) for path in files]
        start, size = time.process_time(), self._processor.batch_items
        for at in range(0, len(items), size):
            for result in self._processor.process(items[at : at + size]):
                if isinstance(result, Exception):
                    raise result
                self._encode(result)
        return time.process_time() - start

    def close(self) -> None:
        self._processor.close()


class WithoutNetwork(Ours):
    """The same with the network's answers known beforehand: what reading, segments, statistics and encoding cost."""

    def __init__(self, engine: str, files: list[Path]) -> None:
        super().__init__(engine)
        network = self._processor._engine
        known = {}
        for path in files:
            samples, _ = read(str(path))
            known[samples[:64].tobytes()] = network.probabilities([samples])
        network.probabilities = lambda blocks: next(known[block[:64].tobytes()] for block in blocks)


# -- silero's own


class SileroSteps:
    """The published network as its package runs it, one window at a time on onnxruntime (without torch's part)."""

    def __init__(self) -> None:
        import onnxruntime

        from pipelines.voice.silero import _model_file

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(_model_file().with_name("silero_vad.onnx")), options)

    def __call__(self, files: list[Path]) -> float:
        import soundfile

        start = time.process_time()
        rate = np.array(16000, np.int64)
        for path in files:
            data, _ = soundfile.read(str(path), dtype="float32")
            count = -(-len(data) // 512)
            audio = np.zeros(64 + 512 * count, np.float32)
            audio[64 : 64 + len(data)] = data
            state, speech = np.zeros((2, 1, 128), np.float32), np.empty(count, np.float32)
            for number in range(count):
                window = audio[None, 512 * number : 512 * number + 576]
                out, state = self._session.run(None, {"input": window, "state": state, "sr": rate})
                speech[number] = out[0, 0]
        return time.process_time() - start

    def close(self) -> None:
        pass


# -- a whole run


def whole_run(engine: str, folder: Path, home: Path) -> float:
    """Processor seconds of `python -m pipelines.vad` over a folder: listing, dealing, work, parts, merge, all."""
    import os
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "pipelines.vad", str(folder), str(home / "out"), "--engine", engine, "--fresh"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    environment["VOXARRAY_HOME"] = str(home)
    root = Path(__file__).resolve().parents[2]
    subprocess.run(command, env=environment, cwd=root, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
