"""Quotas, from what `lfs` and `quota` print."""

from __future__ import annotations

import os

import pytest

from slurm.probes import BAD, NOTE
from slurm.probing import quota


@pytest.fixture
def command(tmp_path, monkeypatch):
    """A program of that name which prints a text."""

    def made(name, text):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit 1\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")

    return made


@pytest.mark.parametrize(
    ("numbers", "standing"),
    [
        ("100 1000 2000 - 10 0 0 -", None),
        ("950 1000 2000 - 10 0 0 -", NOTE),
        ("1500* 1000 2000 6d23h 10 0 0 -", BAD),
        ("100 0 0 - 990 0 1000 -", NOTE),
        ("100 0 0 - 10 0 0 -", None),
        ("none of this", None),
    ],
)
def test_lustre(command, tmp_path, numbers, standing):
    command("lfs", f"     /mnt/fs {numbers}")
    finding = quota.look("t", "lustre", tmp_path)
    assert (finding and finding.standing) == standing


def test_elsewhere_only_what_is_over_is_told(command, tmp_path):
    command("quota", "")
    assert quota.look("t", "nfs4", tmp_path) is None
    command("quota", "Disk quotas for user u:\n  block limit reached on server:/home")
    finding = quota.look("t", "nfs4", tmp_path)
    assert finding.standing == BAD
    assert "block limit reached on server:/home" in finding.seen


def test_nobody_can_tell(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert quota.look("t", "lustre", tmp_path) is None
