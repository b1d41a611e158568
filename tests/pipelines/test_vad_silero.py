"""Silero: the published network's answers, whatever the length, the blocks and the threads."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipelines.core.errors import EnvironmentNotFit
from pipelines.voice import onnx, silero_graph
from pipelines.voice import silero as module
from pipelines.voice.silero import BLOCK, CONTEXT, HOP, WINDOWS, Silero


@pytest.fixture(scope="module")
def published():
    """The published network, step by step: samples (int16) → probability of each window."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = module._model_file().with_name("silero_vad.onnx")
    session = onnxruntime.InferenceSession(str(model), options)

    def steps(samples):
        count = -(-len(samples) // HOP)
        audio = np.zeros(CONTEXT + count * HOP, np.float32)
        audio[CONTEXT : CONTEXT + len(samples)] = samples / np.float32(32768)
        state, rate, out = np.zeros((2, 1, 128), np.float32), np.array(16000, np.int64), []
        for at in range(0, count * HOP, HOP):
            window = audio[None, at : at + CONTEXT + HOP]
            speech, state = session.run(None, {"input": window, "state": state, "sr": rate})
            out.append(speech[0, 0])
        return np.array(out, np.float32)

    return steps


def signals(speech):
    random = np.random.default_rng(0)
    time = np.arange(16000 * 12) / 16000
    return {
        "speech": speech[: 16000 * 60],
        "noisy speech": (speech[: 16000 * 20] + random.normal(0, 300, 16000 * 20))
        .clip(-32768, 32767)
        .astype(np.int16),
        "noise": random.integers(-32768, 32768, 16000 * 12).astype(np.int16),
        "silence": np.zeros(16000 * 12, np.int16),
        "tone": (8000 * np.sin(2 * np.pi * 220 * time)).astype(np.int16),
        "a twentieth of a second": speech[20_000:20_800],
        "one sample": speech[20_000:20_001],
        "one window": speech[20_000 : 20_000 + HOP],
        "a window and a sample": speech[20_000 : 20_001 + HOP],
    }


def test_the_published_networks_answers(silero, published, speech):
    for name, samples in signals(speech).items():
        expected = published(samples)
        found = silero.probabilities([samples])
        assert found.shape == expected.shape, name
        assert np.abs(found - expected).max() < 2e-5, name


def test_nothing(silero):
    assert len(silero.probabilities([])) == 0


def test_blocks_and_threads_do_not_matter(silero, speech):
    """The same bits in one block or several, and while other threads are at work."""
    samples = np.resize(speech, BLOCK + WINDOWS * HOP * 3 + 777)
    whole = silero.probabilities([samples])
    assert np.array_equal(silero.probabilities([samples[:BLOCK], samples[BLOCK:]]), whole)
    others = [speech[at : at + 30_000] for at in range(0, 300_000, 10_000)]
    alone = [silero.probabilities([other]) for other in others]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda samples: silero.probabilities([samples]), [*others, samples]))
    assert np.array_equal(again.pop(), whole)
    assert all(np.array_equal(one, other) for one, other in zip(alone, again))


def test_numpy_1_gives_nearly_the_same(silero, speech):
    """There, transforms are in double precision."""
    old = Silero()
    old._in_place = False
    samples = speech[: 16000 * 10]
    assert np.abs(old.probabilities([samples]) - silero.probabilities([samples])).max() < 1e-5


def test_another_network_is_refused():
    model = module._model_file()
    with pytest.raises(EnvironmentNotFit, match="not the one this pipeline knows"):
        silero_graph.weights(model.with_name("silero_vad_half.onnx").read_bytes())
    with pytest.raises(EnvironmentNotFit, match="cannot be read"):
        silero_graph.weights(model.read_bytes()[:-5000])


def test_an_environment_without_the_wheel(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EnvironmentNotFit, match="voxarray env create vad"):
        Silero()


def test_neither_torch_nor_silero_is_imported():
    script = "import sys; from pipelines.voice.silero import Silero; Silero(); "
    script += "print('silero_vad' in sys.modules, 'torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_what_is_written_is_read_again():
    weights = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(300, np.float32)}
    nodes = [onnx.Node("MatMul", ["x", "a"], ["y"]), onnx.Node("LSTM", ["y", "b", ""], ["z"], {"hidden_size": 128})]
    found, again = onnx.read(onnx.write(nodes, weights, {"x": ["n", 2]}, {"y": ["n", 3]}))
    assert {name: array.tolist() for name, array in found.items()} == {n: a.tolist() for n, a in weights.items()}
    assert [node[:3] for node in again] == [(node.operation, list(node.inputs), list(node.outputs)) for node in nodes]
