"""`import-checkpoint NAME`: published models, with and without a network, from a server on this machine."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import numpy as np
import pytest

from pipelines.core.errors import UsageError
from pipelines.units import download, importing, known, models, published
from tests.units import made

CENTROIDS = np.random.default_rng(0).standard_normal((20, 64)).astype(np.float32)
DENSE, QUANTIZER = "hubert-base-ls960", "hubert-base-ls960-layer-9-kmeans-500"
VOCODER = f"{QUANTIZER}-hifigan"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(models.VARIABLE, str(tmp_path / "models"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv(download.TEXTLESS_VARIABLE, raising=False)
    monkeypatch.setattr(download, "_TRIES", 1)
    return tmp_path


def run(*arguments):
    assert importing.main([str(each) for each in arguments]) == 0


class Files(BaseHTTPRequestHandler):
    """Serves bytes by path, ranges too; breaks off after `limit` bytes of an answer, if there is one."""

    files: ClassVar[dict] = {}
    asked: ClassVar[list] = []
    limit = None

    def do_GET(self):
        data = self.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        self.asked.append((self.path, start))
        if start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:][: self.limit])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """The published files' place, on this machine. Returns how to publish small ones under known names."""
    serving = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    monkeypatch.setattr(published, "BASE", f"http://127.0.0.1:{serving.server_port}")
    monkeypatch.setattr(Files, "files", {})
    monkeypatch.setattr(Files, "asked", [])
    known._models.cache_clear()
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def publish(name, **contents):
        """Serve `contents` by role, and expect their digests."""
        model = known.find(name)
        files = []
        for file in model.files:
            data = contents[file.role]
            Files.files[file.url[len(published.BASE) :]] = data
            files.append(file._replace(sha256=hashlib.sha256(data).hexdigest()))
        table = {**known._models(), name: model._replace(files=tuple(files))}
        monkeypatch.setattr(known, "_models", lambda: table)

    original = known._models
    yield publish
    serving.shutdown()
    thread.join()
    serving.server_close()
    original.cache_clear()


@pytest.fixture
def everything(server, folder):
    """An encoder, its codebook and its vocoder, published."""
    made.fairseq_hubert(folder / "made" / "h.pt", layers=9)
    made.joblib_kmeans(folder / "made" / "km.bin", CENTROIDS)
    made.codehifigan(folder / "made" / "voice", vocabulary=20)
    server(DENSE, weights=(folder / "made" / "h.pt").read_bytes())
    server(QUANTIZER, weights=(folder / "made" / "km.bin").read_bytes())
    voice = {name: (folder / "made" / "voice" / f"{name}.txt").read_bytes() for name in ("speakers", "styles")}
    voice["weights"] = (folder / "made" / "voice" / "generator.pt").read_bytes()
    voice["config"] = (folder / "made" / "voice" / "config.json").read_bytes()
    server(VOCODER, **voice)


def test_published_names_are_downloaded_and_imported(everything, folder, capsys):
    run(DENSE, QUANTIZER, VOCODER)
    found = models.resolve_units(QUANTIZER)
    assert (found.dense.name, found.layer) == (DENSE, 9)
    vocoder = models.describe(VOCODER, "hifigan")
    assert len(vocoder.config["speakers"]) == 3
    assert "non-commercial" in vocoder.licence
    assert list((folder / "models" / ".downloads").iterdir()) == []
    assert "downloading" in capsys.readouterr().out
    asked = len(Files.asked)
    run(DENSE, "hubert-base-ls960-layer-9", QUANTIZER, VOCODER)
    assert len(Files.asked) == asked
    assert capsys.readouterr().out.count("nothing was changed") == 4


def test_files_that_textlesslib_has_are_used(everything, folder, monkeypatch):
    (folder / "textless").mkdir()
    file = known.find(QUANTIZER).files[0]
    (folder / "textless" / file.name).write_bytes((folder / "made" / "km.bin").read_bytes())
    monkeypatch.setenv(download.TEXTLESS_VARIABLE, str(folder / "textless"))
    run(QUANTIZER)
    assert Files.asked == []
    assert (folder / "textless" / file.name).exists()


def test_a_published_file_given_by_its_path_has_its_name(everything, folder):
    run(folder / "made" / "km.bin")
    features = models.describe(QUANTIZER).config["features"]
    assert (features["model"], features["layer"]) == (DENSE, 9)


def test_files_brought_in_a_folder(everything, folder):
    (folder / "usb").mkdir()
    (folder / "usb" / "km.bin").write_bytes(b"another model's file of the same name")
    with pytest.raises(UsageError, match="bring http"):
        run(QUANTIZER, "--from", folder / "usb", "--no-download")
    address = known.find(QUANTIZER).files[0].url.rsplit("/", 1)[-1]
    (folder / "usb" / address).write_bytes((folder / "made" / "km.bin").read_bytes())
    run(QUANTIZER, "--from", folder / "usb", "--no-download")
    assert models.exists(QUANTIZER)


def test_a_file_that_is_not_the_published_one(everything, folder):
    (folder / "usb").mkdir()
    whole = (folder / "made" / "km.bin").read_bytes()
    (folder / "usb" / known.find(QUANTIZER).files[0].name).write_bytes(whole[:-1])
    with pytest.raises(UsageError, match="SHA-256"):
        run(QUANTIZER, "--from", folder / "usb", "--no-download")
    assert not models.exists(QUANTIZER)


def test_a_download_goes_on_where_it_stopped(everything, folder, monkeypatch):
    monkeypatch.setattr(Files, "limit", 5_000)
    with pytest.raises(UsageError, match="goes on from there"):
        run(QUANTIZER)
    monkeypatch.setattr(Files, "limit", None)
    run(QUANTIZER)
    assert [start for _, start in Files.asked] == [0, 5_000]
    assert models.exists(QUANTIZER)


def test_a_download_that_something_changed(everything, folder):
    path = known.find(QUANTIZER).files[0].url[len(published.BASE) :]
    Files.files[path] = b"<html>please log in</html>"
    with pytest.raises(UsageError, match="something on the way changed it"):
        run(QUANTIZER)
    assert list((folder / "models" / ".downloads").iterdir()) == []


def test_no_internet(everything, monkeypatch):
    Files.files.clear()
    with pytest.raises(UsageError, match="404"):
        run(QUANTIZER)
    monkeypatch.setattr(download, "_TIMEOUT_S", 2.0)
    broken = known.find(QUANTIZER)
    file = broken.files[0]._replace(url="http://127.0.0.1:9/km.bin")
    table = {QUANTIZER: broken._replace(files=(file,))}
    monkeypatch.setattr(known, "_models", lambda: table)
    with pytest.raises(UsageError, match=r"Compute nodes often have no internet.*--from FOLDER"):
        run(QUANTIZER)
