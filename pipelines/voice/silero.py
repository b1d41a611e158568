"""Silero's network over whole recordings, with its own weights and no torch.

The STFT of the published network is a windowed real FFT, so it is computed as one (numpy), and what follows it in one
call of onnxruntime a block (`silero_graph`). A recording is its own batch: blocks start at its first sample,
and the LSTM's state is carried from block to block, so its probabilities depend on nothing else, bit for bit. They
agree with the published step-by-step network's within 1e-5. (Batches of recordings would save a tenth of the time.)
"""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path
from typing import Any, Iterable

import numpy as np

from pipelines.audio.resample import FULL_SCALE, Float32, Int16
from pipelines.core.errors import EnvironmentNotFit
from pipelines.voice import silero_graph
from pipelines.voice.silero_graph import BINS, FRAMES, STATE

HOP = 512
"""Samples a window adds (32 ms)."""
CONTEXT = 64
"""Samples of the window before that a window begins with."""
WINDOWS = 192
"""Windows computed at once: their spectra stay in the processor's cache."""
BLOCK = 20 * WINDOWS * HOP
"""Samples to read at a time (123 s)."""


class Scratch(threading.local):
    """One thread's buffers: a block's audio behind its context, its windowed frames and their spectra."""

    def __init__(self) -> None:
        self.audio: Float32 = np.zeros(CONTEXT + WINDOWS * HOP, np.float32)
        self.frames: Float32 = np.empty((WINDOWS, FRAMES, 256), np.float32)
        self.complex: Any = np.empty((WINDOWS, FRAMES, BINS), np.complex64)
        self.spectra: Float32 = np.empty((WINDOWS, FRAMES, BINS), np.float32)
        step, sample = HOP * 4, 4
        view = np.lib.stride_tricks.as_strided
        self.whole = view(self.audio, (WINDOWS, 3, 256), (step, 128 * sample, sample))
        """The first three frames of each window."""
        self.last = view(self.audio[384:], (WINDOWS, 192), (step, sample))
        """The fourth frame's own samples …"""
        self.mirrored = view(self.audio[511:], (WINDOWS, 64), (step, sample))[:, ::-1]
        """… and the window's end mirrored (without its last sample), which fills that frame."""


class Silero:
    """The engine. Thread-safe. Raises EnvironmentNotFit, which names the `environment` to mend."""

    hop = HOP
    block = BLOCK

    def __init__(self, environment: str = "vad") -> None:
        weights = silero_graph.weights(_model_file(environment).read_bytes(), environment)
        basis = weights["stft.forward_basis_buffer"][:, 0]
        self._session = _session(silero_graph.build(weights), environment)
        # The basis for frequency 0 is the analysis window itself. Dividing by a power of two rounds nothing.
        self._window: Float32 = (basis[0] / FULL_SCALE).astype(np.float32)
        self._scratch = Scratch()
        self._in_place = int(np.__version__.split(".")[0]) >= 2

    def probabilities(self, blocks: Iterable[Int16]) -> Float32:
        """Speech probability of each window of a recording: shape (windows,). The last window is filled with zeros.

        `blocks` hold `block` samples each, the last one any number.
        """
        speech: list[Float32] = []
        hidden = cell = np.zeros((1, 1, STATE), np.float32)
        context: Float32 = np.zeros(CONTEXT, np.float32)
        for block in blocks:
            for start in range(0, len(block), WINDOWS * HOP):
                spectra, context = self._spectra(block[start : start + WINDOWS * HOP], context)
                part, hidden, cell = self._session.run(None, {"spectra": spectra, "hidden": hidden, "cell": cell})
                speech.append(part[:, 0])
        return np.concatenate(speech) if speech else np.empty(0, np.float32)

    def _spectra(self, samples: Int16, context: Float32) -> tuple[Float32, Float32]:
        """The magnitudes of up to WINDOWS windows, shape (windows, 4 × 129), and the context of the next window."""
        scratch, window = self._scratch, self._window
        count = -(-len(samples) // HOP)
        end = CONTEXT + len(samples)
        scratch.audio[:CONTEXT] = context
        scratch.audio[CONTEXT:end] = samples
        scratch.audio[end : CONTEXT + count * HOP] = 0
        frames, spectra = scratch.frames[:count], scratch.spectra[:count]
        np.multiply(scratch.whole[:count], window, out=frames[:, :3])
        np.multiply(scratch.last[:count], window[:192], out=frames[:, 3, :192])
        np.multiply(scratch.mirrored[:count], window[192:], out=frames[:, 3, 192:])
        if self._in_place:
            np.abs(np.fft.rfft(frames, out=scratch.complex[:count]), out=spectra)
        else:  # numpy 1 transforms in double precision only, into an array of its own
            spectra[:] = np.abs(np.fft.rfft(frames))
        context = scratch.audio[count * HOP : count * HOP + CONTEXT].copy()
        return spectra.reshape(count, FRAMES * BINS), context


def _model_file(environment: str = "vad") -> Path:
    """The model inside silero-vad's wheel, found without importing the package (that would import torch)."""
    spec = importlib.util.find_spec("silero_vad")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "data" / "silero_vad_16k_sequence.onnx"
        if path.is_file():
            return path
    raise EnvironmentNotFit(
        "The silero-vad package with its sequence model is not in this environment, and `--engine silero` needs its "
        f"weights. Make it with `./voxarray env create {environment}`, or `pip install --no-deps silero-vad==6.2.3`."
    )


def _session(model: bytes, environment: str) -> Any:
    """An onnxruntime session that computes in the calling thread."""
    try:
        import onnxruntime
    except ImportError as error:
        raise EnvironmentNotFit(
            f"onnxruntime cannot be used ({error}), and `--engine silero` computes with it. Make the environment with "
            f"`./voxarray env create {environment}`, or `pip install onnxruntime`."
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
