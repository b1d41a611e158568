"""The program on a node where something never comes to an end: a step that hangs, a peer that is not there."""

from __future__ import annotations

import json
import time

import pytest

from slurm.probing import job, judge, node
from slurm.probing.node import Node
from slurm.probing.talk import LOGIN, Talk


@pytest.fixture
def order(tmp_path):
    """An order for two nodes, with limits that a test can wait for; returns what writes it."""
    (tmp_path / "words").mkdir()
    (tmp_path / "token").write_text("abc")
    folder = {"title": "output", "folder": str(tmp_path), "paths": [str(tmp_path)], "written": [str(tmp_path)],
              "tokens": [str(tmp_path / "token")], "token": "abc"}  # fmt: skip
    value = {"nodes": 2, "patience_s": 0.3, "meet_s": 0.3, "step_s": 0.5, "folders": [folder], "environments": [],
             "commands": {"scontrol": ["true"], "sbatch": ["sh", "-c", "echo no >&2; exit 1"]}}  # fmt: skip

    def write(**changes):
        (tmp_path / "order.json").write_text(json.dumps({**value, **changes}))
        return {**value, **changes}

    return write


def test_without_the_other_node(order, tmp_path):
    told = order()
    Node(tmp_path, 0).run()
    answer = Talk(tmp_path / "words", LOGIN, 2).hear("0", "answer")
    assert answer["at"] == "the end"
    assert "silence" in answer["clock"]
    assert "node 1" in answer["alone"]
    assert answer["commands"]["sbatch"] == "no"
    assert answer["folders"]["0"]["look"]["sees"]
    assert set(answer["folders"]["0"]) == {"look"}
    findings = {finding.name: finding.standing for finding in judge.judge(told, {0: answer})}
    assert findings["room"] == "ok"
    assert findings["submission from a node"] == "not fit"


def test_a_step_that_hangs_is_given_up(order, tmp_path):
    order()
    one = Node(tmp_path, 1)
    begun = time.monotonic()
    found = one.step("hang", one.answer, lambda: time.sleep(300))
    assert time.monotonic() - begun < 100
    assert found["hung_s"] == 0.5
    assert "hung" in judge.missing(found)


def test_errors_and_lateness_are_told(order, tmp_path, monkeypatch):
    order()
    one = Node(tmp_path, 1)

    def fails():
        raise OSError(116, "Stale file handle")

    assert one.step("fails", one.answer, fails)["error"] == "Stale file handle"
    assert one.step("breaks", one.answer, lambda: 1 / 0)["error"].startswith("ZeroDivisionError")
    monkeypatch.setattr(node, "LIMIT_S", 0.0)
    assert one.step("late", one.answer, dict) == {"late": True}


def test_the_first_of_two_jobs_that_stays_alone(tmp_path, monkeypatch):
    """It says all it can; the second is given up."""
    (tmp_path / "words").mkdir()
    submitted = []
    monkeypatch.setattr(job.cluster, "call", lambda *words, **_: submitted.append(words) or "Submitted batch job 8")
    monkeypatch.setattr(job.Probe, "_ask_queue", lambda _: ("PENDING", "Resources"))
    probe = job.Probe(tmp_path / "words", 2, lambda _: None, lambda host: f"# not on {host}\n")
    probe.submit("# first\n")
    first = Talk(tmp_path / "words", "0", 2)
    first.say("answer", {"host": "n1", "at": "the end"})
    first.say("done")
    outcome = probe.wait(180)
    assert outcome.end == "half"
    assert (tmp_path / "job.sh").read_text() == "# not on n1\n"
    assert [words[0] for words in submitted] == ["sbatch", "sbatch"]
