"""The trials on real mounts: two views of one folder, each with caches and locks of its own in the kernel.

bindfs (FUSE) shows a folder anew. Without lock forwarding, its locks hold within one mount only, as those of NFS with
nolock and of Lustre with localflock; its timeouts are those of a network file system's attribute caches.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from slurm.probes import GOOD, NOTE
from slurm.probing import delays, shared
from tests.launch.two_nodes import judged, together

CACHE_S = 3


@pytest.fixture
def mounted(tmp_path):
    """Two mounts of one folder, made with the given options."""
    if shutil.which("bindfs") is None or shutil.which("fusermount") is None or not Path("/dev/fuse").exists():
        pytest.skip("bindfs is not installed, or there is no /dev/fuse")
    folder, mounts = tmp_path / "folder", [tmp_path / "n1", tmp_path / "n2"]
    for path in (folder, *mounts):
        path.mkdir()
    done = []

    def mount(*options):
        for point in mounts:
            tried = subprocess.run(["bindfs", *options, folder, point], capture_output=True, text=True, check=False)
            if tried.returncode:
                pytest.skip(f"nothing can be mounted here: {tried.stderr}")
            done.append(point)
        return folder, mounts

    yield mount
    for point in done:
        subprocess.run(["fusermount", "-u", "-z", point], check=True)


def seen(mounted, trial):
    folder, mounts = mounted
    answers = together(folder, trial, mounts=mounts, patience_s=30.0)
    return judged(trial, answers)


@pytest.mark.parametrize("trial", ["flock", "posix"])
@pytest.mark.parametrize(
    ("options", "standing"), [((), NOTE), (("--enable-lock-forwarding", "--multithreaded"), GOOD)]
)
def test_locks_of_one_node_are_told_from_shared_ones(mounted, trial, options, standing):
    finding = seen(mounted(*options), trial)
    assert finding.standing == standing, finding


def test_caches_are_measured(mounted, monkeypatch):
    monkeypatch.setattr(delays, "BUDGET_S", 2.0)
    cached = f"attr_timeout={CACHE_S},entry_timeout={CACHE_S},negative_timeout={CACHE_S}"
    finding = seen(mounted("-o", cached), "by name")
    assert finding.standing == NOTE, finding
    # the cache of the other node on the way there, and often ours on the way back; a busy machine adds to both
    assert finding.measured["worst_s"] > CACHE_S - 0.2


@pytest.mark.parametrize("trial", ["listed", "renamed", "replaced", "exclusive", "link"])
def test_without_caches_all_is_seen_at_once(mounted, monkeypatch, trial):
    monkeypatch.setattr(shared, "LATE_S", 20.0)  # of a busy machine's stalls, this test says nothing
    finding = seen(mounted("-o", "attr_timeout=0,entry_timeout=0,negative_timeout=0"), trial)
    assert finding.standing == GOOD, finding
