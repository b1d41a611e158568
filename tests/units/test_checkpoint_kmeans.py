"""k-means files of scikit-learn: the centroids, and nothing else that is in them."""

from __future__ import annotations

import os
import pickle
import random

import joblib
import numpy as np
import pytest

from pipelines.units.checkpoint import CheckpointError
from pipelines.units.joblib_file import read_centroids
from tests.units import made

CENTROIDS = np.random.default_rng(0).standard_normal((50, 64)).astype(np.float32)


@pytest.mark.parametrize("compress", [0, 1, 9, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)], ids=str)
def test_the_centroids_bit_for_bit(tmp_path, compress):
    made.joblib_kmeans(tmp_path / "km.bin", CENTROIDS, compress)
    found = read_centroids(tmp_path / "km.bin")
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert np.array_equal(found, CENTROIDS)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_plain_pickle(tmp_path, protocol):
    model = made.joblib_kmeans(tmp_path / "km.bin", CENTROIDS)
    (tmp_path / "km.pkl").write_bytes(pickle.dumps(model, protocol=protocol))
    assert np.array_equal(read_centroids(tmp_path / "km.pkl"), CENTROIDS)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_other_numbers_and_orders(tmp_path, dtype, order):
    given = np.asarray(CENTROIDS, dtype=dtype, order=order)
    np.save(tmp_path / "km.npy", given)
    joblib.dump(given, tmp_path / "km.bin")
    for name in ("km.npy", "km.bin"):
        assert np.array_equal(read_centroids(tmp_path / name), given.astype(np.float32))


def test_files_of_older_joblib(tmp_path):
    """They name numpy's functions elsewhere, and know no alignment."""
    made.joblib_kmeans(tmp_path / "km.bin", CENTROIDS)
    data = (tmp_path / "km.bin").read_bytes()
    assert b"sklearn.cluster._kmeans" in data
    older = data.replace(b"sklearn.cluster._kmeans", b"sklearn.cluster.k_means")
    (tmp_path / "older.bin").write_bytes(older)
    assert np.array_equal(read_centroids(tmp_path / "older.bin"), CENTROIDS)


class Malicious:
    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("call", [
    (os.mkdir, ("{ran}",)),
    (eval, ("__import__('os').mkdir('{ran}')",)),
    (exec, ("__import__('os').mkdir('{ran}')",)),
    (getattr, ("x", "upper")),
    (pickle.loads, (b"cos\nmkdir\n(S'{ran}'\ntR.",)),
    (np.load, ("{ran}",)),
], ids=lambda call: call[0].__name__)  # fmt: skip
@pytest.mark.parametrize("where", ["alone", "in the model", "in an array", "compressed"])
def test_nothing_is_run(tmp_path, call, where):
    ran = tmp_path / "ran"
    arguments = tuple(each.replace("{ran}", str(ran)) if isinstance(each, str) else each for each in call[1])
    bad = Malicious((call[0], arguments))
    content = {
        "alone": bad,
        "in the model": {"cluster_centers_": CENTROIDS, "other": [bad]},
        "in an array": np.array([bad], dtype=object),
        "compressed": bad,
    }[where]
    joblib.dump(content, tmp_path / "km.bin", compress=3 if where == "compressed" else 0)
    with pytest.raises(CheckpointError, match=r"was not loaded"):
        read_centroids(tmp_path / "km.bin")
    assert not ran.exists()


@pytest.mark.parametrize(("content", "told"), [
    ([1, 2], "a list without cluster_centers_"),
    ({"a": CENTROIDS}, "a dict without cluster_centers_"),
    (CENTROIDS[0], r"shape \(64,\)"),
    (np.arange(6).reshape(2, 3), "type int64"),
    (CENTROIDS[:0], "no centroids"),
    (np.full((2, 3), np.nan), "undefined numbers"),
])  # fmt: skip
def test_other_content(tmp_path, content, told):
    joblib.dump(content, tmp_path / "km.bin")
    with pytest.raises(CheckpointError, match=told):
        read_centroids(tmp_path / "km.bin")


def test_a_model_that_was_not_fitted(tmp_path):
    from sklearn.cluster import MiniBatchKMeans

    joblib.dump(MiniBatchKMeans(3), tmp_path / "km.bin")
    with pytest.raises(CheckpointError, match=r"a sklearn\.cluster\._kmeans\.MiniBatchKMeans without"):
        read_centroids(tmp_path / "km.bin")


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3)], ids=str)
def test_cut_off_anywhere(tmp_path, compress):
    made.joblib_kmeans(tmp_path / "km.bin", CENTROIDS, compress)
    whole = (tmp_path / "km.bin").read_bytes()
    for size in [0, 1, 2, 5, 60, 600, len(whole) // 2, len(whole) - 1]:
        (tmp_path / "cut.bin").write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"cut off|empty|no k-means"):
            read_centroids(tmp_path / "cut.bin")


def test_spoilt_bytes_give_an_answer_or_a_paragraph(tmp_path):
    made.joblib_kmeans(tmp_path / "km.bin", CENTROIDS)
    whole = (tmp_path / "km.bin").read_bytes()
    chance = random.Random(1)
    for _ in range(500):
        spoilt = bytearray(whole)
        for _ in range(3):
            spoilt[chance.randrange(1_500)] = chance.randrange(256)
        (tmp_path / "spoilt.bin").write_bytes(spoilt)
        try:
            found = read_centroids(tmp_path / "spoilt.bin")
        except CheckpointError as error:
            assert len(str(error)) < 1_000
        else:
            assert found.ndim == 2


@pytest.mark.parametrize("content", [b"hello", b"{}", b"\x80\xff", b"PK\x03\x04" + bytes(100)])
def test_other_files(tmp_path, content):
    (tmp_path / "km.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match="no k-means of scikit-learn"):
        read_centroids(tmp_path / "km.bin")


def test_a_large_promise_is_not_kept(tmp_path):
    """A small file that speaks of a large array."""
    data = pickle.dumps(CENTROIDS[:1], protocol=2)
    (tmp_path / "km.bin").write_bytes(data.replace(b"K\x01K@\x86", b"K\x01J\xff\xff\xff\x7f\x86"))
    with pytest.raises(CheckpointError):
        read_centroids(tmp_path / "km.bin")
