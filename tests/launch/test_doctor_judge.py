"""What recorded answers of nodes amount to: sound mounts, bad mounts, wrong clocks, nodes that fell silent."""

from __future__ import annotations

import json

import pytest

from slurm.probes import BAD, GOOD, NOTE, UNKNOWN
from slurm.probing import judge, limits
from slurm.probing.trials import BLOCKS, NAMES
from slurm.resources import Description

ORDER = {
    "nodes": 2,
    "folders": [
        {"title": "output, logs", "folder": "/home/u/output/.doctor", "paths": ["/home/u/output"]},
        {"title": "repository", "folder": None, "paths": ["/opt/voxarray"]},
    ],
    "environments": ["vad", "asr"],
}
LOOK = {"type": "nfs4", "options": "rw,hard", "missing": [], "refused": [], "unseen": [], "sees": True,
        "free_bytes": 900 << 30, "free_files": 10**9, "write_s": 0.02, "took_s": 0.03}  # fmt: skip
ALL = list(range(NAMES * BLOCKS))


def node(rank):
    """A node of a sound cluster: half of all names are its own."""
    owners = [str(number % 2) for number in ALL]
    race = {"won": ALL[rank::2], "owners": owners, "took_s": 1.0}
    lock = {str(rank): {"got": "held"}, str(1 - rank): {"got": "refused", "freed_s": 0.01}, "took_s": 0.1}
    delay = {"trips": {"1": [0.004, 0.006, 0.02]}, "lost": []} if rank == 0 else {}
    trials = {
        "by name": delay, "listed": delay, "renamed": delay, "replaced": {**delay, "reads": 100, "torn": 0},
        "exclusive": race, "link": race, "flock": lock, "posix": lock,
    }  # fmt: skip
    trials = {name: {"took_s": 0.5, **value} for name, value in trials.items()}
    return {
        "rank": rank,
        "host": f"n{rank + 1}",
        "at": "the end",
        "clock": {"offset_s": 0.01, "within_s": 0.02, "took_s": 0.1},
        **({"commands": {"scontrol": "", "sbatch": "", "took_s": 0.1}} if rank == 0 else {}),
        "folders": {"0": {"look": LOOK, **trials}, "1": {"look": {**LOOK, "type": "ext4"}}},
        "environments": {["vad", "asr"][rank]: {"failures": [], "import_s": 2.0, "took_s": 2.1}},
    }


@pytest.fixture
def answers():
    return {rank: json.loads(json.dumps(node(rank))) for rank in range(2)}


def worst(answers):
    """Name → finding of all that is not well."""
    return {finding.name: finding for finding in judge.judge(ORDER, answers) if finding.standing != GOOD}


def test_a_sound_cluster(answers):
    assert not worst(answers)
    findings = judge.judge(ORDER, answers)
    names = [finding.name for finding in findings]
    assert {"clock of n1", "submission from a node", "room", "lock (flock)", "a rename over a file", "vad"} <= set(
        names
    )
    delay = next(finding for finding in findings if finding.name == "a new file")
    assert delay.measured == {"median_s": 0.003, "worst_s": 0.02, "rounds": 3}
    assert "3 ms (median), 20 ms at most" in delay.seen
    assert all(not finding.remedy for finding in findings)


def test_locks_that_hold_on_one_node_only(answers):
    answers[1]["folders"]["0"]["flock"]["0"] = {"got": "entered", "freed_s": None}
    (finding,) = worst(answers).values()
    assert (finding.name, finding.standing) == ("lock (flock)", NOTE)
    assert "n2 got it too" in finding.seen
    assert "nolock" in finding.remedy


def test_a_mount_that_says_it_has_no_locks(answers):
    answers[0]["folders"]["0"]["look"]["options"] = "rw,localflock"
    (finding,) = worst(answers).values()
    assert finding.name == "mount on n1"


def test_a_lock_that_is_not_given_back(answers):
    answers[1]["folders"]["0"]["flock"]["0"]["freed_s"] = None
    (finding,) = worst(answers).values()
    assert "stayed taken" in finding.seen
    answers[1]["folders"]["0"]["flock"]["0"]["freed_s"] = 12.0
    (finding,) = worst(answers).values()
    assert "12 s" in finding.seen


def test_files_that_are_seen_late(answers):
    answers[0]["folders"]["0"]["listed"]["trips"] = {"1": [29.5, 31.0]}
    (finding,) = worst(answers).values()
    assert (finding.name, finding.standing) == ("a new file in a listed folder", NOTE)
    assert "31 s at most" in finding.seen
    assert "lookupcache" in finding.remedy


@pytest.mark.parametrize("trips", [{"1": []}, {"1": [0.1]}])
def test_files_that_are_never_seen(answers, trips):
    answers[0]["folders"]["0"]["by name"].update(trips=trips, lost=["1"])
    (finding,) = worst(answers).values()
    assert finding.standing == BAD


def test_names_won_twice_and_content_that_is_another_nodes(answers):
    answers[1]["folders"]["0"]["exclusive"]["won"].append(0)
    (finding,) = worst(answers).values()
    assert (finding.name, finding.standing, finding.measured["doubled"]) == ("exclusive create", BAD, 1)
    answers[1]["folders"]["0"]["exclusive"]["won"].pop()
    answers[0]["folders"]["0"]["exclusive"]["owners"][7] = "0"
    (finding,) = worst(answers).values()
    assert "another node's content" in finding.seen
    answers[0]["folders"]["0"]["exclusive"]["owners"][7] = ""
    (finding,) = worst(answers).values()
    assert (finding.standing, finding.measured["empty"]) == (NOTE, 1)


def test_nodes_that_did_not_meet_at_any_name(answers):
    for node, won in zip(answers.values(), (ALL, [])):
        node["folders"]["0"]["link"].update(won=won, owners=["0"] * len(ALL))
    assert not worst(answers)
    assert any("came too late" in finding.seen for finding in judge.judge(ORDER, answers))


def test_a_name_whose_taker_was_not_told(answers):
    """An NFS client that repeats a request whose answer was lost is told that the name is taken, by itself."""
    answers[0]["folders"]["0"]["link"]["won"].remove(4)
    assert not worst(answers)


def test_clocks(answers):
    answers[1]["clock"].update(offset_s=-60.0)
    (finding,) = worst(answers).values()
    assert (finding.name, finding.standing) == ("clock of n2", NOTE)
    assert "-60.00 s" in finding.seen
    assert "chrony" in finding.remedy
    answers[1]["clock"].update(offset_s=1.0, within_s=30.0)
    (finding,) = worst(answers).values()
    assert "too late to tell" in finding.seen
    answers[1]["clock"] = {"silence": "nothing was heard"}
    assert worst(answers)["clock of n2"].standing == UNKNOWN


def test_a_node_that_sees_another_folder(answers):
    answers[1]["folders"]["0"]["look"].update(unseen=["/home/u/output/.doctor/token"], sees=False)
    (finding,) = worst(answers).values()
    assert (finding.name, finding.standing) == ("n2", BAD)
    assert "VOXARRAY_HOME" in finding.remedy


def test_a_folder_that_may_not_be_written_there(answers):
    answers[1]["folders"]["0"]["look"].update(refused=["/home/u/output"])
    (finding,) = worst(answers).values()
    assert "may not write" in finding.seen


@pytest.mark.parametrize(
    ("changes", "standing"),
    [
        ({"free_bytes": 2**29}, BAD),
        ({"free_bytes": 2**32}, NOTE),
        ({"free_files": 10}, NOTE),
        ({"write_s": 9.0}, NOTE),
    ],
)
def test_room(answers, changes, standing):
    answers[0]["folders"]["0"]["look"].update(changes)
    (finding,) = worst(answers).values()
    assert (finding.name, finding.standing) == ("room", standing)


def test_submission_from_a_node_that_is_refused(answers):
    answers[0]["commands"]["sbatch"] = "allocation failure: Access/permission denied"
    (finding,) = worst(answers).values()
    assert (finding.name, finding.standing) == ("submission from a node", BAD)
    assert "retry RUN" in finding.remedy


def test_environments_that_fail_hang_or_take_long(answers):
    answers[0]["environments"]["vad"]["failures"] = ["import ten_vad: OSError: libc++.so.1: cannot open"]
    answers[1]["environments"]["asr"]["import_s"] = 300.0
    found = worst(answers)
    assert (found["vad"].standing, found["asr"].standing) == (BAD, NOTE)
    assert "libc++" in found["vad"].seen
    answers[0]["environments"]["vad"] = {"hung_s": 200.0}
    del answers[1]["environments"]["asr"]
    found = worst(answers)
    assert (found["vad"].standing, found["asr"].standing) == (BAD, UNKNOWN)


def test_a_node_that_dies_in_the_middle(answers):
    for trial in ("flock", "posix"):
        del answers[1]["folders"]["0"][trial]
        answers[0]["folders"]["0"][trial] = {"silence": "nothing was heard from node 1 within 75 s"}
    found = worst(answers)
    assert {name: finding.standing for name, finding in found.items()} == {
        "lock (flock)": UNKNOWN,
        "lock (fcntl)": UNKNOWN,
    }
    assert "not begun" in found["lock (flock)"].seen


def test_an_error_of_the_file_system_is_not_fit(answers):
    answers[0]["folders"]["0"]["renamed"] = {"error": "Stale file handle"}
    (finding,) = worst(answers).values()
    assert finding.standing == BAD
    assert "Stale file handle" in finding.seen


# -- limits

CONFIG = {"MaxArraySize": "1001", "MaxJobCount": "10000", "JobRequeue": "1", "KillWait": "30 sec",
          "PreemptType": "preempt/none", "PreemptMode": "OFF"}  # fmt: skip
MAIN = {"PartitionName": "main", "State": "UP", "MaxTime": "1-00:00:00", "DefaultTime": "01:00:00",
        "MaxNodes": "UNLIMITED", "TotalNodes": "4", "PreemptMode": "OFF", "GraceTime": "0"}  # fmt: skip


def limited(config=None, **partition):
    asr = Description("asr", None, "", "", "asr", {"time": "8:00:00"})
    found = limits.Partition("main", {**MAIN, **partition})
    return {f.name: f for f in limits.findings({**CONFIG, **(config or {})}, found, [asr]) if f.standing != GOOD}


def test_usual_limits_are_well():
    assert not limited()
    assert limits.Partition("main", MAIN).nodes == 4
    assert limits.Partition("main", {**MAIN, "MaxNodes": "1"}).nodes == 1
    assert limits.Partition("main", {**MAIN, "MaxTime": "UNLIMITED"}).minutes is None


@pytest.mark.parametrize(
    ("config", "partition", "name", "standing", "said"),
    [
        ({"MaxArraySize": "0"}, {}, "arrays", BAD, "arrays are off"),
        ({"MaxArraySize": "51"}, {}, "arrays", NOTE, "51 tasks"),
        ({}, {"MaxTime": "02:00:00"}, "time", NOTE, "asr asks for more"),
        ({}, {"State": "DRAIN"}, "state", BAD, "drain"),
        ({"PreemptType": "preempt/qos"}, {"PreemptMode": "CANCEL"}, "preemption", NOTE, "cancel"),
        ({"PreemptType": "preempt/qos"}, {"PreemptMode": "REQUEUE"}, "preemption", NOTE, "notice 0 s"),
        ({"PreemptType": "preempt/qos"}, {"PreemptMode": "SUSPEND,GANG"}, "preemption", NOTE, "suspended"),
        ({"KillWait": "2 sec"}, {}, "end of a job", NOTE, "2 s"),
    ],
)
def test_limits_that_matter(config, partition, name, standing, said):
    (finding,) = limited(config, **partition).values()
    assert (finding.name, finding.standing) == (name, standing)
    assert said in finding.seen + finding.remedy


def test_requeueing_with_enough_notice_is_well():
    assert not limited({"PreemptType": "preempt/qos"}, PreemptMode="REQUEUE", GraceTime="120")
    assert not limited({"JobRequeue": "0"})
