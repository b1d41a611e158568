"""The trials of `doctor --cluster`, by processes that share a real folder; some lie about locks, links or listings."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from slurm.probes import BAD, GOOD, NOTE, UNKNOWN
from slurm.probing import delays, shared, talk, trials
from slurm.probing.talk import SilenceError, Talk
from tests.launch.two_nodes import FORK, judged, nothing, one_node, together


def no_flock():
    fcntl.flock = lambda *_: None


def no_posix():
    fcntl.lockf = lambda *_: None


def flock_refused():
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    fcntl.flock = refuse


def flock_hangs():
    fcntl.flock = lambda *_: time.sleep(60)


def links_replace():
    """As a file system whose links are copies that overwrite."""

    def link(source, target):
        Path(target).write_bytes(Path(source).read_bytes())

    os.link = link


def no_links():
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    os.link = refuse


def exclusive_ignored():
    opened = os.open
    os.open = lambda path, flags, mode=0o777, **more: opened(path, flags & ~os.O_EXCL, mode, **more)


def renames_in_two_steps():
    """As a file system that removes the old name first."""
    replace = os.replace

    def slowly(source, target):
        if Path(target).name.startswith("value."):
            Path(target).unlink(missing_ok=True)
            time.sleep(0.03)
        replace(source, target)

    os.replace = slowly


def listings_are_old():
    """As an NFS client that keeps a folder's listing for half a second."""
    kept = {}
    names = delays._names

    def old(folder):
        when, found = kept.get(folder, (0.0, set()))
        if time.monotonic() - when > 0.5:
            when, found = kept[folder] = (time.monotonic(), names(folder))
        return found

    delays._names = old


@pytest.mark.parametrize("trial", trials.TRIALS)
def test_a_sound_folder_is_well(tmp_path, trial):
    finding = judged(trial, together(tmp_path, trial))
    assert finding.standing == GOOD, finding
    assert not finding.remedy
    assert finding.measured


@pytest.mark.parametrize("trial", ["exclusive", "link"])
def test_races_are_real_and_won_by_one(tmp_path, trial):
    answers = together(tmp_path, trial)
    names = set(range(trials.NAMES * trials.BLOCKS))
    assert set(answers[0]["won"]) | set(answers[1]["won"]) == names
    assert not set(answers[0]["won"]) & set(answers[1]["won"])
    assert answers[0]["owners"] == answers[1]["owners"]


@pytest.mark.parametrize(
    ("trial", "lie", "standing", "said"),
    [
        ("flock", no_flock, NOTE, "got it too"),
        ("posix", no_posix, NOTE, "got it too"),
        ("flock", flock_refused, NOTE, "there are no locks"),
        ("link", links_replace, BAD, "won by two nodes"),
        ("link", no_links, NOTE, "no hard links"),
        ("exclusive", exclusive_ignored, BAD, "won by two nodes"),
        ("replaced", renames_in_two_steps, NOTE, "found the file missing"),
    ],
)
def test_one_node_that_lies_is_found(tmp_path, trial, lie, standing, said):
    finding = judged(trial, together(tmp_path, trial, nothing, lie))
    assert finding.standing == standing, finding
    assert said in finding.seen


def test_old_listings_are_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(delays, "BUDGET_S", 2.0)
    finding = judged("listed", together(tmp_path, "listed", nothing, listings_are_old))
    assert 0.05 < finding.measured["median_s"] < 0.6
    assert 0.2 < finding.measured["worst_s"] < 2


def test_a_node_that_sees_nothing_ends_in_a_finding(tmp_path, monkeypatch):
    monkeypatch.setattr(delays, "ROUNDS", 3)

    def blind():
        delays._names = lambda _: set()

    answers = together(tmp_path, "listed", nothing, blind, patience_s=1.0)
    assert answers[0]["lost"] == ["1"]
    assert judged("listed", answers).standing == BAD


def test_a_node_that_hangs_does_not_hang_the_other(tmp_path):
    (tmp_path / "words").mkdir()
    _, its = FORK.Pipe(duplex=False)
    hanging = FORK.Process(target=one_node, args=(0, 2, tmp_path, "flock", flock_hangs, 1.0, its), daemon=True)
    hanging.start()
    other, theirs = FORK.Pipe(duplex=False)
    FORK.Process(target=one_node, args=(1, 2, tmp_path, "flock", nothing, 1.0, theirs), daemon=True).start()
    assert other.poll(20)
    answer = other.recv()
    hanging.kill()
    assert "nothing was heard from node 0" in answer["silence"]
    (finding,) = [
        f
        for f in shared.together("t", {"n1": {"flock": {"hung_s": 9.0}}, "n2": {"flock": answer}})
        if "flock" in f.name
    ]
    assert finding.standing == BAD
    assert "hang at their start" in finding.remedy


def test_three_nodes(tmp_path):
    answers = together(tmp_path, "exclusive", nodes=3)
    assert sum(len(answer["won"]) for answer in answers) == trials.NAMES * trials.BLOCKS
    (tmp_path / "other").mkdir()
    answers = together(tmp_path / "other", "renamed", nodes=3)
    assert set(answers[0]["trips"]) == {"1", "2"}
    (tmp_path / "third").mkdir()
    assert judged("flock", together(tmp_path / "third", "flock", nodes=3)[:2]).standing == GOOD


def test_a_word_that_is_never_said(tmp_path):
    with pytest.raises(SilenceError, match="node 1 within 0 s"):
        Talk(tmp_path, "0", 2).hear("1", "word", 0.2)
    assert not list(tmp_path.iterdir())
    assert talk.wait(lambda: False, 0.05) is None


def test_words_are_said_anew(tmp_path):
    one, two = Talk(tmp_path, "0", 2), Talk(tmp_path, "1", 2)
    assert two.said("0", "word") is None
    for value in ({"a": 1}, None, 3):
        one.about("topic").say("word", value)
        assert two.about("topic").hear("0", "word") == value
    assert two.said("0", "word") is None


def test_what_is_not_seen_to_its_end_is_told():
    findings = shared.together("t", {"n1": {}, "n2": {"late": True}})
    assert {finding.standing for finding in findings} == {UNKNOWN}
