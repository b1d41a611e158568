"""pip's configuration in uv's words; finding interpreters; choosing where prefixes go."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pipelines.core.errors import EnvironmentNotFit
from pipelines.core.paths import repository
from slurm.envs import index, interpreters, places
from slurm.envs.definition import find

LISTING = """\
:env:.default-timeout='180'
:env:.find-links='/env/wheels'
global.cert='/etc/corporate.pem'
global.extra-index-url='file:///a/simple file:///b/simple'
global.find-links='/global/wheels'
global.index-url='https://global.invalid/simple'
install.index-url='https://install.invalid/simple'
install.trusted-host='inner.invalid'
"""


def test_options_follow_pips_precedence() -> None:
    options = index.uv_options(index.merged(LISTING))
    assert options == [
        "--default-index", "https://install.invalid/simple",
        "--index", "file:///a/simple", "--index", "file:///b/simple",
        "--find-links", "/env/wheels",
        "--allow-insecure-host", "inner.invalid",
        "--index-strategy", "unsafe-best-match",
    ]  # fmt: skip


def test_values_of_several_lines() -> None:
    assert index.uv_options(index.merged("global.find-links='/one\\n/two'\nglobal.no-index='true'\n")) == [
        "--find-links", "/one", "--find-links", "/two", "--no-index", "--index-strategy", "unsafe-best-match",
    ]  # fmt: skip


def test_environment_of_uv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SSL_CERT_FILE", "UV_HTTP_TIMEOUT", "UV_CACHE_DIR", "HTTPS_PROXY", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("VIRTUAL_ENV", "/elsewhere")
    monkeypatch.setenv("HOME", "/nonexistent/home")
    if os.geteuid() == 0:
        monkeypatch.setattr(index, "is_writable", lambda folder: "nonexistent" not in str(folder))
    environment = index.uv_environment(index.merged(LISTING), tmp_path)
    assert environment["SSL_CERT_FILE"] == "/etc/corporate.pem"
    assert environment["UV_HTTP_TIMEOUT"] == "180"
    assert environment["UV_CACHE_DIR"] == str(tmp_path / ".uv-cache")
    assert not {"PYTHONPATH", "VIRTUAL_ENV"} & set(environment)
    monkeypatch.setenv("SSL_CERT_FILE", "/mine.pem")
    assert index.uv_environment(index.merged(LISTING), tmp_path)["SSL_CERT_FILE"] == "/mine.pem"


def test_real_configuration_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = "[global]\nindex-url = https://file.invalid/simple\nfind-links =\n    /one\n    /two\n"
    (tmp_path / "pip.conf").write_text(text)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    configuration = index.pip_configuration()
    assert configuration["index-url"] == "https://file.invalid/simple"
    assert configuration["find-links"].split() == ["/one", "/two"]
    monkeypatch.setenv("PIP_INDEX_URL", "https://variable.invalid/simple")
    assert index.pip_configuration()["index-url"] == "https://variable.invalid/simple"


def test_the_pip_that_comes_along_is_whole() -> None:
    """Every file of the wheel has the hash that its own record says."""
    import base64
    import csv
    import hashlib
    import io
    import zipfile

    with zipfile.ZipFile(Path(index.pip()[0]).parent) as wheel:
        record = next(name for name in wheel.namelist() if name.endswith(".dist-info/RECORD"))
        rows = list(csv.reader(io.StringIO(wheel.read(record).decode())))
        assert len(rows) == len(wheel.namelist())
        for name, digest, _ in rows:
            if name != record:
                found = base64.urlsafe_b64encode(hashlib.sha256(wheel.read(name)).digest()).rstrip(b"=").decode()
                assert digest == f"sha256={found}", name


def test_interpreter_found_past_shims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shim = tmp_path / "python3.11"
    shim.write_text("#!/bin/sh\necho 'not for you' >&2\nexit 127\n")
    shim.chmod(0o755)
    assert interpreters.probe(shim) is None
    assert interpreters.probe(tmp_path / "absent") is None
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    version = "{}.{}".format(*sys.version_info)
    found = interpreters.find(["3.0", version])
    assert found is not None
    assert found[0] == version
    assert interpreters.find(["3.0"]) is None
    real = interpreters.probe(Path(sys.executable))
    assert real is not None
    assert real[1].resolve() != tmp_path
    assert ".prefix" not in str(real[1]), "an environment's Python, not the machine's"


def test_interpreter_that_is_named_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = "{}.{}".format(*sys.version_info)
    mine = tmp_path / "mine"
    mine.write_text(f"#!/bin/sh\nprintf '{version}\\n/the/one\\n'\n")
    mine.chmod(0o755)
    monkeypatch.setenv(interpreters.VARIABLE, str(mine))
    assert interpreters.find([version]) == (version, Path("/the/one"))


def test_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(places.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    own, cache = places.roots()
    assert own == repository() / "envs/.prefix"
    assert cache.parent == tmp_path / "voxarray"
    monkeypatch.setattr(places, "is_writable", lambda folder: folder != own)
    assert places.writable_root() == cache
    monkeypatch.setenv(places.VARIABLE, str(tmp_path / "mine"))
    assert places.prefix(find("vad")) == tmp_path / "mine/vad"
    monkeypatch.setattr(places, "is_writable", lambda _: False)
    with pytest.raises(EnvironmentNotFit, match="VOXARRAY_ENVS"):
        places.writable_root()
