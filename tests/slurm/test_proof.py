"""The tests' proof can fail: a run that lost, doubled or changed anything does not pass it."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path
from typing import Tuple

import pytest
from proof import Reference, RunFiles, key, output, prove


@pytest.fixture
def finished(reference: Reference, corpus: Path, tmp_path: Path) -> Tuple[RunFiles, Path]:
    """A copy of the undisturbed run and of its outputs, to spoil."""
    home = tmp_path / "home"
    shutil.copytree(reference.stem.parents[1], home)
    run = RunFiles(next((home / "output" / "runs").iterdir()))
    stem = home / "metadata" / reference.stem.name
    receipt = run.receipt()
    for entry in receipt["outputs"]:
        entry["path"] = str(home / "metadata" / Path(entry["path"]).name)
    (run.folder / "merged.json").write_text(json.dumps(receipt))
    prove(run, stem, corpus, reference)
    return run, stem


def lose_a_part(run, stem):
    min(run.folder.glob("parts/*/*.jsonl")).unlink()


def tear_a_part(run, stem):
    path = min(run.folder.glob("parts/*/*.jsonl"))
    path.write_bytes(path.read_bytes()[:-20])


def lose_a_row_of_the_manifest(run, stem):
    path = output(stem, ".json")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))


def double_a_row_of_the_table(run, stem):
    path = output(stem, ".csv")
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(keepends=True)[-1])


def change_a_digit_of_a_segment(run, stem):
    path = output(stem, "_segments.json")
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))


def let_twins_differ(run, stem):
    path = min(run.folder.glob("parts/*/*.jsonl"))
    header, row = path.read_bytes().splitlines()[:2]
    part = json.loads(header)["part"]
    changed = {**json.loads(row), "result": {"duration": 0}}
    body = (json.dumps(changed) + "\n").encode()
    part.update(rows=1, crc32=zlib.crc32(body), sequence=999)
    path.with_name("task_0000.999.jsonl").write_bytes(json.dumps({"part": part}).encode() + b"\n" + body)


def forget_the_merge(run, stem):
    (run.folder / "merged.json").unlink()


@pytest.mark.parametrize(
    "spoil",
    [
        lose_a_part,
        tear_a_part,
        lose_a_row_of_the_manifest,
        double_a_row_of_the_table,
        change_a_digit_of_a_segment,
        let_twins_differ,
        forget_the_merge,
    ],
)
def test_the_proof_notices(finished, reference, corpus, spoil):
    run, stem = finished
    spoil(run, stem)
    with pytest.raises(AssertionError):
        prove(run, stem, corpus, reference)


def publish(run: RunFiles, launch: int, *listing: str, done: Tuple[int, ...]) -> None:
    """A part of a launch of that listing, in which the items at these places were done."""
    rows = [{"index": index, "key": key(listing[index]), "status": "done", "result": {}} for index in done]
    body = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path = run.folder / "parts" / f"launch-{launch:03d}" / "task_0000.000.jsonl"
    path.parent.mkdir(parents=True)
    part = {"task": 0, "rows": len(rows), "crc32": zlib.crc32(body)}
    path.write_bytes(json.dumps({"part": part}).encode() + b"\n" + body)


@pytest.mark.parametrize(("done", "times"), [((0,), {"a": 1, "b": 1, "c": 1}), ((0, 2), {"a": 1, "b": 1, "c": 2})])
def test_what_is_done_twice_is_known_by_its_name(tmp_path, done, times):
    """A file that sorts before the others moves them all by a place."""
    run = RunFiles(tmp_path)
    publish(run, 0, "b", "c", done=(0, 1))
    publish(run, 1, "a", "b", "c", done=done)
    assert run.done() == {key(name): number for name, number in times.items()}
