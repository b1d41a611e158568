"""Slurm's states and reasons in plain words."""

from __future__ import annotations

import pytest

from slurm import states, submit
from slurm.cluster import Queued


def queued(state, reason, tasks="N/A"):
    return Queued("12", tasks, state, reason, "tone.x.000")


def test_held_after_a_failed_start_says_what_to_type():
    told = states.explain([queued("PENDING", "launch failed requeued held", "3")])
    (line,) = told
    assert line.startswith("Job 12_3: its node failed to start it, so Slurm put it back and holds it; ")
    assert line.endswith("`scontrol release 12_3` lets it start.")


def test_never_satisfied_says_what_to_type():
    (told,) = states.explain([queued("PENDING", "DependencyNeverSatisfied")])
    assert "will wait for ever" in told
    assert "scancel 12" in told


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Priority", "higher priority come first"),
        ("(Resources)", "is next"),
        ("QOSMaxJobsPerUserLimit", "as many jobs as your QOS allows"),
        ("PartitionTimeLimit", "less --time"),
        ("ReqNodeNotAvail, UnavailableNodes:n1", "down, drained or reserved"),
        (
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
            "down, drained or reserved",
        ),
        ("BurstBufferResources", "burst buffer"),
        ("BurstBufferStageIn", "burst buffer"),
        ("BeginTime", "starts again"),
        ("JobHeldUser", "held by you"),
        ("JobHeldAdmin", "administrator"),
        ("BadConstraints", "ask for less"),
        ("AssocGrpCPUMinutesLimit", "account uses all"),
        ("SomethingNew", "Slurm's reason is SomethingNew"),
    ],
)
def test_reasons(reason, words):
    (told,) = states.explain([queued("PENDING", reason)])
    assert words in told


@pytest.mark.parametrize("reason", ["", "None", "(None)"])
def test_nothing_to_say(reason):
    assert states.explain([queued("PENDING", reason)]) == []


def test_running_jobs_need_no_words():
    assert states.explain([queued("RUNNING", "None"), queued("COMPLETING", "None")]) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [("OUT_OF_MEMORY", "more memory"), ("NODE_FAIL", "node"), ("CANCELLED+", "cancelled"), ("NEW", "NEW")],
)
def test_states(name, words):
    assert words in states.state(name)


def test_who_needs_help():
    assert states.needs_help("launch failed requeued held")
    assert not states.needs_help("Priority")
    assert not states.needs_help("None")


@pytest.mark.parametrize(
    ("said", "todo"),
    [
        ("Batch job submission failed: Job violates accounting/QOS policy (job submit limit)", "--tasks"),
        ("invalid partition specified: gpux", "--partition"),
        ("Invalid account or account/partition combination specified", "--account"),
        ("Requested node configuration is not available", "--mem"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "--time"),
        ("Unable to contact slurm controller (connect failure)", "try again"),
        ("something else", "doctor"),
    ],
)
def test_refusals_come_with_advice(said, todo):
    assert todo in submit.advice(said)
