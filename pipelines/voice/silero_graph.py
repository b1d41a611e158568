"""Silero's network, rearranged for whole recordings: the same weights and sums, fewer and larger operations.

As published, every window of 576 samples goes through an STFT written as a convolution (two thirds of the arithmetic)
and through four convolutions over its four frames. Here the spectra come from an FFT (`silero`), and a convolution is
one matrix product for each frame position, over all windows of a block at once: that is how processors are fast.

Per window of 512 new samples (32 ms): spectra (4 frames, 129 bins) → 4 × 128 → 2 × 64 → 64 → 128 → LSTM 128 → 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pipelines.core.errors import EnvironmentNotFit
from pipelines.voice import onnx

BINS = 129
FRAMES = 4
STATE = 128

_SHAPES = {
    "stft.forward_basis_buffer": (2 * BINS, 1, 256),
    "encoder.0.weight": (128, BINS, 3),
    "encoder.0.bias": (128,),
    "encoder.1.weight": (64, 128, 3),
    "encoder.1.bias": (64,),
    "encoder.2.weight": (64, 64, 3),
    "encoder.2.bias": (64,),
    "encoder.3.weight": (128, 64, 3),
    "encoder.3.bias": (128,),
    "output.weight": (1, 128, 1),
    "output.bias": (1,),
    "lstm.W": (1, 512, 128),
    "lstm.R": (1, 512, 128),
    "lstm.B": (1, 1024),
}


def weights(model: bytes, environment: str = "vad") -> dict[str, onnx.Array]:
    """The weights in the wheel's `silero_vad_16k_sequence.onnx`. Raises EnvironmentNotFit if it is another network."""
    try:
        found, nodes = onnx.read(model)
    except ValueError as error:
        raise _unknown(f"its model file cannot be read ({error})", environment) from None
    for node in nodes:
        if node.operation == "LSTM":
            for short, name in zip("WRB", node.inputs[1:4]):
                found[f"lstm.{short}"] = found[name]
    for name, shape in _SHAPES.items():
        if name not in found or found[name].shape != shape:
            raise _unknown(f"its weights {name} are not of shape {shape}", environment)
    return found


def _unknown(what: str, environment: str) -> EnvironmentNotFit:
    return EnvironmentNotFit(
        f"The silero-vad package that is installed is not the one this pipeline knows: {what}. Install silero-vad "
        f"6.2.3 (`./voxarray env create {environment}`), or use `--engine ten`."
    )


@dataclass
class _Graph:
    """Collects nodes and weights."""

    source: dict[str, onnx.Array]
    nodes: list[onnx.Node] = field(default_factory=list)
    weights: dict[str, onnx.Array] = field(default_factory=dict)

    def taps(self, layer: int, first: int, last: int) -> onnx.Array:
        """Taps first … last-1 of a convolution over three frames, as a matrix (taps × channels in, channels out)."""
        kernel = self.source[f"encoder.{layer}.weight"]
        return np.concatenate([kernel[:, :, tap].T for tap in range(first, last)])

    def dense(self, name: str, taken: str, layer: int, first: int, last: int) -> None:
        """ReLU(`taken` · taps + bias) → `name`."""
        matrix, bias = f"{name}.weight", f"encoder.{layer}.bias"
        self.weights[matrix] = self.taps(layer, first, last)
        self.weights[bias] = self.source[bias]
        self.nodes.append(onnx.Node("Gemm", [taken, matrix, bias], [f"{name}.sum"]))
        self.nodes.append(onnx.Node("Relu", [f"{name}.sum"], [name]))

    def columns(self, name: str, taken: str, first: int, last: int) -> None:
        """Columns first … last-1 of a matrix → `name`."""
        for end, value in (("first", first), ("last", last), ("axis", 1)):
            self.weights[f"{name}.{end}"] = np.array([value], np.int64)
        self.nodes.append(onnx.Node("Slice", [taken, *(f"{name}.{end}" for end in ("first", "last", "axis"))], [name]))

    def reshape(self, name: str, taken: str, shape: list[int]) -> None:
        """`taken` in another shape → `name`."""
        self.weights[f"{name}.shape"] = np.array(shape, np.int64)
        self.nodes.append(onnx.Node("Reshape", [taken, f"{name}.shape"], [name]))


def build(source: dict[str, onnx.Array]) -> bytes:
    """The model: spectra [windows, 4 × 129], state hidden, cell [1, 1, 128] → speech [windows, 1], the state after."""
    graph = _Graph(source)
    # (first frame, last frame + 1, first tap, last tap + 1): what of the frames each position of the kernel covers
    for position, (start, stop, first, last) in enumerate(((0, 2, 1, 3), (0, 3, 0, 3), (1, 4, 0, 3), (2, 4, 0, 2))):
        graph.columns(f"frames{position}", "spectra", start * BINS, stop * BINS)
        graph.dense(f"a{position}", f"frames{position}", 0, first, last)
    graph.nodes.append(onnx.Node("Concat", ["a0", "a1"], ["a01"], {"axis": 1}))
    graph.nodes.append(onnx.Node("Concat", ["a1", "a2", "a3"], ["a123"], {"axis": 1}))
    graph.dense("b0", "a01", 1, 1, 3)
    graph.dense("b1", "a123", 1, 0, 3)
    graph.nodes.append(onnx.Node("Concat", ["b0", "b1"], ["b"], {"axis": 1}))
    graph.dense("c", "b", 2, 1, 3)
    graph.dense("d", "c", 3, 1, 2)
    graph.reshape("sequence", "d", [-1, 1, STATE])
    _recurrent(graph)
    state = [1, 1, STATE]
    return onnx.write(
        graph.nodes,
        graph.weights,
        {"spectra": ["windows", FRAMES * BINS], "hidden": state, "cell": state},
        {"speech": ["windows", 1], "hidden_end": state, "cell_end": state},
    )


def _recurrent(graph: _Graph) -> None:
    """The LSTM over the windows, and the speech probability of each."""
    for name in ("lstm.W", "lstm.R", "lstm.B"):
        graph.weights[name] = graph.source[name]
    graph.nodes.append(
        onnx.Node(
            "LSTM",
            ["sequence", "lstm.W", "lstm.R", "lstm.B", "", "hidden", "cell"],
            ["states", "hidden_end", "cell_end"],
            {"hidden_size": STATE},
        )
    )
    graph.reshape("flat", "states", [-1, STATE])
    graph.nodes.append(onnx.Node("Relu", ["flat"], ["positive"]))
    graph.weights["last.weight"] = graph.source["output.weight"].reshape(STATE, 1)
    graph.weights["last.bias"] = graph.source["output.bias"]
    graph.nodes.append(onnx.Node("Gemm", ["positive", "last.weight", "last.bias"], ["logit"]))
    graph.nodes.append(onnx.Node("Sigmoid", ["logit"], ["speech"]))
