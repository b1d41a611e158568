"""The walk over a directory: nothing that looks like a recording is skipped without a word."""

from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path

import pytest

from pipelines.core import listing
from pipelines.core.errors import ManifestError
from pipelines.core.manifest import items
from pipelines.vad import PIPELINE
from pipelines.vad.listing import list_items


def listed(folder) -> dict:
    rows = list(list_items(folder, {}))
    found = {row["audio_filepath"]: row.get("problem") for row in rows}
    assert len(found) == len(rows)
    return {os.path.relpath(path, folder): problem for path, problem in found.items()}


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_suffixes_of_any_case_at_any_depth(tmp_path):
    wanted = ["a.wav", "B.WAV", "c.Flac", "d/e.mp3", "d/f/g.ogg", "d/f/h.opus", "i j/k l.m4a", "d.wav/m.aiff"]
    others = ["a.txt", "wav", ".wav", "b.wav.bak", "c.mp4", "d/README", "e.json"]
    touch(*(tmp_path / name for name in wanted + others))
    assert listed(tmp_path) == dict.fromkeys(wanted)


def test_links_are_followed_but_not_in_a_circle(tmp_path):
    touch(tmp_path / "real/a.wav", tmp_path / "elsewhere/b.wav", tmp_path / "corpus/c.wav")
    corpus = tmp_path / "corpus"
    (corpus / "file.wav").symlink_to(tmp_path / "real/a.wav")
    (corpus / "folder").symlink_to(tmp_path / "elsewhere")
    (corpus / "again").symlink_to(tmp_path / "elsewhere")
    (corpus / "up").symlink_to(corpus)
    (tmp_path / "elsewhere/back").symlink_to(corpus)
    (corpus / "itself").symlink_to(corpus / "itself")
    assert listed(corpus) == dict.fromkeys(["c.wav", "file.wav", "folder/b.wav", "again/b.wav"])


def test_links_among_the_folders_themselves_make_no_recording_twice(tmp_path):
    """As in a layout where each speaker's folder has links to related ones: every path through them would count."""
    names = "abcdefg"
    for name in names:
        touch(tmp_path / name / f"{name}.wav")
        for other in names.replace(name, ""):
            (tmp_path / name / f"related_{other}").symlink_to(tmp_path / other)
    assert listed(tmp_path) == dict.fromkeys(f"{name}/{name}.wav" for name in names)


def test_what_cannot_be_read_is_listed_with_its_problem(tmp_path):
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "nothing.wav")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    found = listed(tmp_path)
    assert "symbolic link to something that does not exist" in found["dangling.wav"]
    assert "symbolic link" in found["loop.wav"]
    assert "not a regular file" in found["pipe.wav"]


def test_a_directory_that_cannot_be_read_is_a_row():
    root = not os.geteuid()
    # Not below pytest's own folder: that one is closed to other users, and root has to become one to be refused.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        touch(folder / "open/a.wav", folder / "shut/b.wav")
        (folder / "shut").chmod(0)
        if root:
            os.seteuid(65534)
        try:
            found = listed(folder)
        finally:
            if root:
                os.seteuid(0)
            (folder / "shut").chmod(0o755)
    assert found["open/a.wav"] is None
    assert "permission denied" in found["shut"]
    assert len(found) == 2


def test_names_that_are_not_utf8(tmp_path):
    touch(tmp_path / "good.wav")
    (tmp_path / os.fsdecode(b"b\xe9b\xe9")).mkdir()
    for name in (b"caf\xe9.wav", b"b\xe9b\xe9/a.wav"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"x")
    found = listed(tmp_path)
    assert found["good.wav"] is None
    assert "not valid UTF-8" in found[r"caf\xe9.wav"]
    assert "not valid UTF-8" in found[r"b\xe9b\xe9/a.wav"]


def test_strange_names_survive(tmp_path):
    names = ["é ü.wav", "a\nb.wav", 'quo"te.wav', "back\\slash.wav", "tab\t.wav", "日本.flac", "a,b;c.wav"]
    touch(*(tmp_path / name for name in names))
    listing.publish(PIPELINE, tmp_path, {}, tmp_path / "out" / "listing.jsonl")
    found = [item.audio_filepath for item in items(tmp_path / "out" / "listing.jsonl")]
    assert sorted(found) == sorted(str(tmp_path / name) for name in names)


def test_it_streams(tmp_path, monkeypatch):
    """The first row comes before the last directory is opened, and one directory is open at a time."""
    touch(*(tmp_path / f"{number:03d}/a.wav" for number in range(50)))
    opened, scandir = [], os.scandir

    def counting(path):
        opened.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counting)
    rows = list_items(tmp_path, {})
    next(rows)
    assert len(opened) == 2
    assert len(list(itertools.islice(rows, 100))) == 49
    assert len(opened) == 51


def test_a_directory_without_recordings(tmp_path):
    touch(tmp_path / "a.txt")
    with pytest.raises(ManifestError, match="No recordings were found"):
        listing.publish(PIPELINE, tmp_path, {}, tmp_path / "out.jsonl")
