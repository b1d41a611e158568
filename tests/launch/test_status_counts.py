"""What `status` and `account` count where a manifest changed, or a merge is out of date."""

from __future__ import annotations

import json

from slurm import cli
from slurm.view import failures


def told(capsys, *words):
    """The one run of a command's JSON, and its exit status."""
    capsys.readouterr()
    status = cli.main([*words, "--json"])
    found = json.loads(capsys.readouterr().out)
    return (found["runs"][0] if "runs" in found else found), status


def test_items_that_left_the_manifest_do_not_count(place, capsys):
    manifest = place.manifest(8)
    assert cli.main(["tone", str(manifest), "--cluster", "local"]) == 0
    rows = manifest.read_text().splitlines()
    others = [row.replace("/0000", "/9000") for row in rows[:5]]
    assert not set(others) & set(rows)
    manifest.write_text("\n".join([*others, *rows[5:]]) + "\n")
    cli.main(["tone", str(manifest), "--cluster", "local", "--limit", "1"])
    run, status = told(capsys, "status", "last")
    assert (run["items"], run["done"], run["left"], status) == (8, 4, 4, 1)
    assert run["state"] == "incomplete"
    assert cli.main(["tone", str(manifest), "--cluster", "local"]) == 0
    run, status = told(capsys, "status", "last")
    assert (run["done"], run["left"], run["state"], status) == (8, 0, "merged", 0)


def test_an_account_does_not_rest_on_a_merge_that_is_out_of_date(place, capsys):
    manifest = place.manifest(8)
    cli.main(["tone", str(manifest), "--cluster", "local", "--limit", "2"])
    assert cli.main(["merge", "last", "--partial"]) == 1
    cli.main(["tone", str(manifest), "--cluster", "local", "--limit", "3"])
    assert told(capsys, "status", "last")[0]["done"] == 5
    assert told(capsys, "account", "last")[0]["items"] == 5


def test_more_failures_than_are_looked_at_are_counted_all_the_same(place, capsys, monkeypatch):
    manifest = place.manifest(10, **{"raise": lambda number: "no" if number < 6 else None})
    cli.main(["tone", str(manifest), "--cluster", "local"])
    (place.folder() / "merged.json").unlink()
    monkeypatch.setattr(failures, "MOST_ROWS", 3)
    run, _ = told(capsys, "status", "last")
    assert (run["done"], run["quarantined"], run["left"], run["state"]) == (4, 6, 0, "finished")


def test_a_merge_by_a_clock_that_is_behind_is_current(place, capsys):
    manifest = place.manifest(4)
    cli.main(["tone", str(manifest), "--cluster", "local"])
    record = place.folder() / "launch-000.json"
    value = json.loads(record.read_text())
    value["created"] = "2099-01-01T00:00:00Z"
    record.write_text(json.dumps(value))
    assert told(capsys, "status", "last")[0]["state"] == "merged"


def test_receipts_of_earlier_versions_are_read(place, capsys):
    manifest = place.manifest(2)
    cli.main(["tone", str(manifest), "--cluster", "local"])
    path = place.folder() / "merged.json"
    value = json.loads(path.read_text())
    assert value.pop("launch") == 0
    path.write_text(json.dumps(value))
    assert told(capsys, "status", "last")[0]["state"] == "merged"
