"""Full and forbidden disks: one clear paragraph, nothing lost, and the same command resumes once there is room."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from unittest import mock

import pytest

from pipelines.core import merge
from pipelines.core.errors import DONE, StorageError
from pipelines.core.extsort import sorted_lines
from pipelines.core.pipeline import Resources
from pipelines.core.spool import KeyBuckets
from pipelines.core.task import TaskLoop
from tests.core.world import REPOSITORY, World, conserved, launch, settle, tiny_disk


def steps(world: World) -> None:
    """A whole run in this process."""
    run = world.run(world.root / "corpus.json")
    number = run.launch_numbers()[-1] if run.launch_numbers() else None
    if number is None:
        number = launch(run)
    assert TaskLoop(run, number, 0, Resources()).work() == DONE
    merge.merge(run)


class Full:
    """A call that fails as on a full disk when it is made for the `at`-th time, and from then on."""

    def __init__(self, real, at: int, taken: int = 0) -> None:
        self.real, self.at, self.taken, self.calls = real, at, taken, 0

    def __call__(self, descriptor, *data):
        self.calls += 1
        if self.calls >= self.at:
            if self.taken and data and isinstance(data[0], bytes):
                self.real(descriptor, data[0][: self.taken], *data[1:])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.real(descriptor, *data)


@pytest.mark.parametrize("what", ["fsync", "write", "pwrite", "replace", "link"])
def test_a_disk_that_is_full_from_some_moment_on_is_told_and_costs_nothing(world, monkeypatch, what):
    monkeypatch.setenv("VOXARRAY_PART_ITEMS", "3")
    rows = world.rows(10)
    rows[4].update({"raise": "x", "once": str(world.root / "once")})
    world.write(rows)
    original = (world.root / "corpus.json").read_bytes()
    with World() as other:
        other.write(rows)
        steps(other)
        merged = (other.root / "corpus.json").read_bytes()
    failed = 0
    for at in range(1, 60):
        full = Full(getattr(os, what), at, taken=7)
        with mock.patch.object(os, what, full):
            try:
                steps(world)
            except StorageError as error:
                failed += 1
                assert "is full" in str(error)
                assert "resumes" in str(error)
            else:
                if full.calls < at:
                    break
        assert (world.root / "corpus.json").read_bytes() in (original, merged)
        if at % 4 == 0:  # the disk has room again, and then is full once more
            run = world.run(world.root / "corpus.json")
            if run.launch_numbers():
                TaskLoop(run, run.launch_numbers()[-1], 0, Resources()).work()
    assert failed, "the fault never struck"
    steps(world)
    receipt = conserved(merge.last_receipt(world.run(world.root / "corpus.json")))
    assert (receipt.merged, receipt.quarantined) == (10, 0)
    assert (world.root / "corpus.json").read_bytes() == merged
    if what != "link":
        assert (world.root / "corpus.json.bak").read_bytes() == original
    assert not list(world.root.rglob("*.tmp"))


@pytest.mark.parametrize("size", [16, 40, 64, 100])
def test_a_tiny_disk_fills_up_and_the_run_resumes_when_it_has_room(world, size):
    with tiny_disk(world.root / "disk", f"{size}k") as disk:
        if disk is None:
            pytest.skip("mounting a small disk takes root")
        source = world.manifest(300)
        original = source.read_bytes()
        variables = {"VOXARRAY_HOME": str(disk), "VOXARRAY_PART_ITEMS": "20", "TOY_SEEN": ""}
        said = ""
        for _ in range(2):
            status, said = world.command(source, **variables)
            assert status == 1, said
            assert "Traceback" not in said
            assert "full" in said, said
            assert source.read_bytes() == original
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        status, said = world.command(source, **variables)
        assert status == 0, said
        assert "300 merged + 0 quarantined" in said
        assert not [path for path in disk.rglob(".*.tmp") if "heartbeat" not in path.name]
    assert (world.root / "corpus.json.bak").read_bytes() == original


def test_a_merge_onto_a_full_disk_leaves_the_manifest_and_resumes(world):
    with tiny_disk(world.root / "disk", "160k") as disk:
        if disk is None:
            pytest.skip("mounting a small disk takes root")
        path = world.write(world.rows(1500), "disk/corpus.json")
        original = path.read_bytes()
        run = world.run(path)
        launch(run)
        settle(run, 0)
        with pytest.raises(StorageError, match="is full"):
            merge.merge(run)
        assert path.read_bytes() == original
        assert [one.name for one in disk.iterdir()] == ["corpus.json"]
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        assert conserved(merge.merge(run)).merged == 1500


def test_a_full_folder_for_temporary_files_is_named(world, monkeypatch):
    with tiny_disk(world.root / "scratch", "100k") as disk:
        if disk is None:
            pytest.skip("mounting a small disk takes root")
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        with KeyBuckets() as keys, pytest.raises(StorageError, match="TMPDIR") as caught:
            keys._spool._block = 512
            for number in range(20_000):
                keys.add(f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}", number)
        assert str(disk) in str(caught.value)
        with pytest.raises(StorageError, match="TMPDIR"):
            list(sorted_lines((b"%d\n" % number for number in range(50_000)), chunk=1000))
        assert not list(disk.iterdir())


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
from tests.core.toy import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("limit", [3000, 20_000])
def test_a_limit_on_the_size_of_files_is_told(world, limit):
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    path = world.manifest(400)
    original = path.read_bytes()
    command = [sys.executable, "-c", LIMITED, str(limit), "tone", str(path)]
    done = subprocess.run(
        command, env=world.variables, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr
    assert path.read_bytes() == original
    status, said = world.command(path)
    assert status == 0, said
    assert "400 merged" in said


@contextmanager
def forbidden(folder):
    """A folder that cannot be written: on a read-only file system for root, who may write everywhere else."""
    if os.geteuid() == 0:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
    else:
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
        yield
        folder.chmod(stat.S_IRWXU)


@pytest.mark.parametrize("place", ["home", "manifest"])
def test_a_place_that_cannot_be_written_is_named(world, place):
    with tiny_disk(world.root / "disk", "4m") as disk:
        folder = disk or world.root / "disk"
        path = world.write(world.rows(5), "disk/corpus.json" if place == "manifest" else "corpus.json")
        with forbidden(folder):
            status, said = world.command(path, **({"VOXARRAY_HOME": str(folder)} if place == "home" else {}))
        assert status == 1, said
        assert "Traceback" not in said
        assert str(folder) in said
        assert "Mend its permissions" in said
        status, said = world.command(path)
        assert status == 0, said


def test_a_home_below_a_file_is_named(world):
    (world.root / "file").write_bytes(b"")
    status, said = world.command(world.manifest(2), VOXARRAY_HOME=str(world.root / "file" / "home"))
    assert status == 1
    assert "Traceback" not in said
    assert str(world.root / "file" / "home") in said
