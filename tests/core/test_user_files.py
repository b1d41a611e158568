"""The user's files: replaced whole with a backup kept, in their mode; audio and all else is left as it is."""

from __future__ import annotations

import errno
import os
import stat
from unittest import mock

import pytest

from pipelines.core import merge, store
from pipelines.core.errors import ManifestError
from pipelines.core.output import published_by
from pipelines.core.run import Wish
from tests.core.world import conserved, decoded, launch, settle, tree


def merged(world, path):
    run = world.run(path)
    record = run.new_launch(Wish(2))
    if record is not None:
        settle(run, record.number)
    conserved(merge.merge(run))


@pytest.mark.parametrize("links", [True, False])
def test_what_stood_there_is_kept_once_and_every_later_state_too(world, links):
    refuse = mock.Mock(side_effect=OSError(errno.EPERM, "no links"))
    with mock.patch.object(os, "link", os.link if links else refuse):
        path = world.manifest(4)
        first = path.read_bytes()
        merged(world, path)
        merged(world, path)
        assert [one.name for one in path.parent.glob("*.bak*")] == ["corpus.json.bak"]
        path.write_bytes(path.read_bytes() + b'{"audio_filepath":"/corpus/new.wav","duration":1}\n')
        second = path.read_bytes()
        merged(world, path)
        path.write_bytes(first)
        merged(world, path)
    kept = {one.name: one.read_bytes() for one in path.parent.glob("*.bak*")}
    assert kept == {"corpus.json.bak": first, "corpus.json.bak2": second}
    assert all("tone" in row for row in decoded(path))
    assert not list(world.root.rglob("*.tmp"))


def test_a_backup_of_the_users_own_is_never_replaced(world):
    path = world.manifest(3)
    path.with_name("corpus.json.bak").write_bytes(b"the user's own backup")
    first = path.read_bytes()
    merged(world, path)
    assert path.with_name("corpus.json.bak").read_bytes() == b"the user's own backup"
    assert path.with_name("corpus.json.bak2").read_bytes() == first


def test_what_another_writes_while_a_merge_publishes_is_not_replaced(world):
    """Where locks do not hold, two pipelines may merge into one manifest at once."""
    path = world.manifest(3)
    run = world.run(path)
    settle(run, launch(run))
    hashed = store.sha256_of

    def while_another_merges(file):
        digest = hashed(file)
        path.write_bytes(path.read_bytes().replace(b"}", b', "theirs": 1}'))
        return digest

    with mock.patch.object(store, "sha256_of", while_another_merges), pytest.raises(ManifestError, match="changed"):
        merge.merge(run)
    assert all("theirs" in row for row in decoded(path))
    assert not list(world.root.rglob("*.tmp"))
    conserved(merge.merge(run))
    assert all("theirs" in row and "tone" in row for row in decoded(path))


def test_the_mode_of_a_manifest_survives(world):
    path = world.manifest(3)
    path.chmod(0o640)
    merged(world, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(path.with_name("corpus.json.bak").stat().st_mode) == 0o640


def test_the_target_of_a_linked_manifest_is_not_written_and_kept_beside_what_takes_the_links_place(world):
    (world.root / "shared").mkdir()
    target = world.manifest(3).rename(world.root / "shared" / "corpus.json")
    before = target.read_bytes()
    link = world.root / "mine.json"
    link.symlink_to(target)
    merged(world, link)
    merged(world, link)
    assert target.read_bytes() == before
    assert all("tone" in row for row in decoded(link))
    assert [path.name for path in world.root.rglob("*.bak*")] == ["mine.json.bak"]
    backup = link.with_name("mine.json.bak")
    assert backup.read_bytes() == before
    assert not backup.is_symlink()


def test_what_a_run_published_is_known_by_any_of_its_names(world):
    (world.root / "folder").mkdir()
    (world.root / "linked").symlink_to(world.root / "folder")
    path = world.manifest(3).rename(world.root / "folder" / "corpus.json")
    run = world.run(world.root / "linked" / "corpus.json")
    settle(run, launch(run))
    (file,) = merge.merge(run).outputs
    assert file.path == str(run.manifest)
    assert published_by(run.id) == {str(path): file.sha256}


def test_audio_and_everything_else_is_left_as_it_is(world):
    source = world.root / "audio"
    source.mkdir()
    for number in range(12):
        (source / f"{number}.wav").write_bytes(b"RIFF" * number)
    (source / "notes.txt").write_text("mine")
    (world.home / "metadata").mkdir()
    (world.home / "metadata" / "other.json").write_text("{}")
    for path in source.iterdir():
        path.chmod(0o444)
    times = {path.name: path.stat().st_mtime_ns for path in source.iterdir()}
    before = tree(world.root)
    status, said = world.command(source, world.root / "out", pipeline="chime")
    assert status == 0, said
    after = tree(world.root)
    assert {path.name: path.stat().st_mtime_ns for path in source.iterdir()} == times
    assert {name: data for name, data in after.items() if name in before} == before
    new = {name for name in after if name not in before}
    assert all(name.startswith(("home/output/runs/", "home/logs/")) for name in new), new


def test_a_fresh_run_deletes_nothing(world):
    path = world.manifest(3)
    merged(world, path)
    before = tree(world.home / "output")
    status, said = world.command(path, "--fresh")
    assert status == 0, said
    after = tree(world.home / "output")
    contents = sorted(after.values())
    assert all(data in contents for data in before.values())
    assert "moved to" in said
