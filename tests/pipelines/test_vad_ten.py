"""TEN-VAD: the wheel's own answers, one handle a recording, and long recordings split exactly."""

from __future__ import annotations

import ctypes
import random
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from pipelines.core.errors import EnvironmentNotFit
from pipelines.voice import ten as module
from pipelines.voice.segments import Rules, segments
from pipelines.voice.ten import HOP, PERIOD, Ten


def by_the_wheel(samples):
    """(probabilities, flags) of ten_vad's own class, hop by hop."""
    from ten_vad import TenVad

    network = TenVad(HOP, 0.5)
    answers = [network.process(samples[at : at + HOP]) for at in range(0, len(samples) - HOP + 1, HOP)]
    return np.array([a for a, _ in answers], np.float32), np.array([b for _, b in answers])


def test_the_wheels_answers(ten, speech):
    samples = speech[: 16000 * 40 + 100]
    expected, flags = by_the_wheel(samples)
    found = ten.probabilities([samples])
    assert np.array_equal(found, expected)
    assert np.array_equal(found > np.float32(0.5), flags == 1)
    covered = np.zeros(len(flags), int)
    for start, end in segments(found, HOP, len(flags) * HOP, Rules()) // HOP:
        covered[start:end] = 1
    assert np.array_equal(covered, flags)


def test_a_new_handle_for_each_recording(ten, speech):
    first, second = speech[:80_000], speech[80_000:160_000]
    alone = ten.probabilities([second])
    ten.probabilities([first])
    assert np.array_equal(ten.probabilities([second]), alone)


@pytest.mark.parametrize("samples", [0, 1, 255, 256, 257, 800])
def test_short(ten, samples):
    assert len(ten.probabilities([np.zeros(samples, np.int16)])) == samples // HOP
    assert len(ten.probabilities([])) == 0


def long_signal(kind: str, speech) -> np.ndarray:
    count = PERIOD * 4 + 12_345
    random_ = np.random.default_rng(0)
    if kind == "speech":
        return np.resize(speech, count)
    if kind == "loud, then nothing":
        out = np.zeros(count, np.int16)
        out[: PERIOD + 5000] = random_.integers(-32768, 32767, PERIOD + 5000)
        return out
    return (9000 * np.sign(np.sin(np.arange(count) / 20)) + random_.integers(-300, 300, count)).astype(np.int16)


@pytest.mark.parametrize("kind", ["speech", "loud, then nothing", "square"])
def test_split_at_every_period_is_the_whole_bit_for_bit(speech, kind):
    samples = long_signal(kind, speech)
    try:
        whole = Ten(lambda _: None).probabilities([samples])
    except EnvironmentNotFit as error:
        pytest.skip(str(error))
    blocks = [samples[at : at + PERIOD] for at in range(0, len(samples), PERIOD)]
    with ThreadPoolExecutor(2) as pool:
        split = Ten(pool.submit).probabilities(blocks)
    assert np.array_equal(split, whole)


def test_whichever_blocks_find_an_idle_thread(ten, speech):
    samples = np.resize(speech, PERIOD * 3 + 999)
    whole = ten.probabilities([samples])
    blocks = [samples[at : at + PERIOD] for at in range(0, len(samples), PERIOD)]
    for seed in range(4):
        chance = random.Random(seed)

        def spawn(work, chance=chance):
            if chance.random() < 0.5:
                return None
            future: Future = Future()
            future.set_result(work())
            return future

        assert np.array_equal(Ten(spawn).probabilities(blocks), whole)


def test_a_failing_read_frees_the_handle(speech):
    freed = []

    class Counting(module.Handle):
        def close(self):
            freed.append(self)
            super().close()

    def blocks():
        yield speech[:PERIOD]
        raise OSError("gone")

    original, module.Handle = module.Handle, Counting
    try:
        with pytest.raises(OSError, match="gone"):
            Ten(lambda _: None).probabilities(blocks())
    except EnvironmentNotFit as error:
        pytest.skip(str(error))
    finally:
        module.Handle = original
    assert len(freed) == 1


def test_a_node_without_libcxx_is_told_what_to_install(monkeypatch):
    def refuse(path):
        raise OSError("libc++.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    with pytest.raises(EnvironmentNotFit, match=r"(?s)apt-get install libc\+\+1.*conda install -c conda-forge libcxx"):
        Ten(lambda _: None)


def test_a_machine_without_a_library(monkeypatch):
    monkeypatch.setattr(module.platform, "machine", lambda: "aarch64")
    with pytest.raises(EnvironmentNotFit, match="--engine silero"):
        Ten(lambda _: None)


def test_an_environment_without_the_wheel(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EnvironmentNotFit, match="voxarray env create vad"):
        Ten(lambda _: None)
