"""The tests' own proof that a run lost and doubled nothing: from the files alone, without the engine's code."""

from __future__ import annotations

import csv
import hashlib
import json
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Set

OUTPUTS = (".csv", ".json", "_segments.json")
GIVEN_UP = 2
"""Strikes that quarantine an item."""


class RunFiles:
    """What a run has on disk, read as JSON."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def id(self) -> str:
        return self.folder.name

    def launches(self) -> List[Dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob("launch-???.json"))]

    def jobs(self, launch: int) -> List[Dict[str, Any]]:
        return json.loads((self.folder / f"launch-{launch:03d}.jobs.json").read_text())["jobs"]

    def receipt(self) -> Dict[str, Any]:
        path = self.folder / "merged.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def listing(self) -> List[str]:
        return [json.loads(line)["audio_filepath"] for line in lines_of(self.folder / "listing.jsonl")]

    def rows(self, launch: int = -1) -> List[Dict[str, Any]]:
        """Rows of all parts (of one launch), each with the launch and task that published it. Checks every part."""
        found = []
        folder = "launch-*" if launch < 0 else f"launch-{launch:03d}"
        for path in sorted(self.folder.glob(f"parts/{folder}/task_*.jsonl")):
            header, _, body = path.read_bytes().partition(b"\n")
            part = json.loads(header)["part"]
            lines = body.splitlines()
            assert len(lines) == part["rows"] and zlib.crc32(body) == part["crc32"], f"{path} is torn"
            found += [{**json.loads(line), "task": part["task"]} for line in lines]
        return found

    def done(self, launch: int = -1) -> Counter:
        """How often each item was done, by its key: its place changes with the listing."""
        return Counter(row["key"] for row in self.rows(launch) if row["status"] == "done")

    def places(self, launch: int = -1) -> Set[int]:
        """Places, in the listing of their launch, of what was done."""
        return {row["index"] for row in self.rows(launch) if row["status"] == "done"}


class Reference(NamedTuple):
    """The outputs of an undisturbed run in one process, and the files that it could not read."""

    stem: Path
    bad: int


def lines_of(path: Path) -> List[bytes]:
    return path.read_bytes().splitlines()


def key(path: str) -> str:
    """The key of a file's item."""
    return hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def output(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


def prove(run: RunFiles, stem: Path, corpus: Path, reference: Reference) -> None:
    """Every file of the corpus is accounted for exactly once, everywhere, and in the reference's bytes."""
    there = sorted(str(path) for path in corpus.rglob("*") if not path.is_dir())
    assert run.listing() == there, "the listing is the corpus"
    _prove_parts(run, there)
    _prove_receipt(run, len(there), reference.bad)
    _prove_outputs(stem, there, reference)


def _prove_parts(run: RunFiles, there: List[str]) -> None:
    """Each file has a result in some part, or so many strikes that it was given up; twins agree to the byte."""
    results: Dict[str, set] = {}
    strikes: Counter = Counter()
    for row in run.rows():
        if row["status"] == "done":
            results.setdefault(row["key"], set()).add(json.dumps(row["result"], sort_keys=True))
        else:
            strikes[row["key"]] += 1
    for path in there:
        assert key(path) in results or strikes[key(path)] >= GIVEN_UP, f"{path} is in no part"
    assert not [twins for twins in results.values() if len(twins) > 1], "attempts at an item differ"


def _prove_receipt(run: RunFiles, items: int, bad: int) -> None:
    receipt = run.receipt()
    assert receipt, f"{run.id} was not merged"
    wanted = {"items": items, "merged": items - bad, "quarantined": bad, "missing": 0}
    assert {key: receipt[key] for key in wanted} == wanted
    assert not receipt["partial"] and not receipt["differing"]
    for entry in receipt["outputs"]:
        content = Path(entry["path"]).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (entry["sha256"], entry["bytes"])


def _prove_outputs(stem: Path, there: List[str], reference: Reference) -> None:
    with output(stem, ".csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["audio_filepath"] for row in table] == there, "one row a file, in the listing's order"
    bad = {row["audio_filepath"] for row in table if row["error"]}
    assert len(bad) == reference.bad
    manifest = [json.loads(line)["audio_filepath"] for line in lines_of(output(stem, ".json"))]
    assert manifest == [path for path in there if path not in bad]
    for suffix in OUTPUTS:
        ours, theirs = output(stem, suffix).read_bytes(), output(reference.stem, suffix).read_bytes()
        assert ours == theirs, f"{stem.name}{suffix} differs from the undisturbed run's"
