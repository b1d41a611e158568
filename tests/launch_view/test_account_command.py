"""`account` as a command: its JSON form, several runs, chains, terminals."""

from __future__ import annotations

import json

import pytest
from made_accounts import submitted
from made_runs import Made, make

from pipelines.core.errors import UsageError
from slurm import account as command
from slurm.chain import state as chains
from slurm.view import account_json, account_text
from slurm.view.account import account
from slurm.view.text import Terminal, visible

RUN_FIELDS = {
    "run", "pipeline", "at_work", "items", "audio_hours", "launches", "tasks", "attempts", "task_hours", "cpu_hours",
    "cpu_hours_used", "cpus_used", "gpu_hours", "cpu_hours_per_audio_hour", "cpu_hours_used_per_audio_hour",
    "gpu_hours_per_audio_hour", "sweep_cpu_hours", "requested", "used", "waste", "states", "sources", "advice",
}  # fmt: skip
TOTAL_FIELDS = {
    "runs", "audio_hours", "cpu_hours", "cpu_hours_used", "gpu_hours", "cpu_hours_per_audio_hour",
    "gpu_hours_per_audio_hour", "sweep_cpu_hours",
}  # fmt: skip


def test_the_json_form_is_stable(moment, capsys):
    submitted(make(Made(), moment))
    assert command.main(["last", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    (run,) = value["runs"]
    assert value["format"] == 1
    assert set(run) == RUN_FIELDS
    assert set(value["total"]) == TOTAL_FIELDS
    assert set(run["requested"]) == {"cpus", "gpus", "mem_mb", "time_limit_s"}
    assert set(run["used"]) == {"cpu_share", "mem_mb", "time_s"}
    assert set(run["waste"]) == {
        "loading_s", "loading_of", "around_s", "lost_s", "cut_short", "padding", "failed_tries", "spare_rows",
    }  # fmt: skip
    assert run["cpu_hours"] == pytest.approx(8 * run["task_hours"], rel=1e-4)
    assert run["cpu_hours_per_audio_hour"] == pytest.approx(run["cpu_hours"] / run["audio_hours"], rel=1e-3)
    assert value["total"]["cpu_hours"] == run["cpu_hours"]
    told = account_json.__doc__
    assert all(name in told for name in (RUN_FIELDS | TOTAL_FIELDS | set(run["waste"]) | set(run["used"])))


def test_several_runs_and_their_total(moment, capsys):
    """Links of a chain hear the same audio; two corpora do not."""
    audio = {}
    for name, pipeline, seed in (("corpus", "tone", 1), ("corpus", "chime", 2), ("other", "tone", 3)):
        maker = make(Made(name=name, pipeline=pipeline, seed=seed, items=100), moment)
        submitted(maker)
        audio[seed] = sum(maker.audio)
    ids = ["corpus-00000001", "corpus-00000002", "other-00000003", "corpus-00000001"]
    assert command.main([*ids, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert [run["run"] for run in value["runs"]] == ids[:3]
    total = value["total"]
    assert total["cpu_hours"] == pytest.approx(sum(run["cpu_hours"] for run in value["runs"]), abs=1e-5)
    assert total["audio_hours"] == pytest.approx(max(audio[1] + audio[3], audio[2]) / 3600, abs=1e-5)
    assert command.main(ids) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("total")
    assert sum(text.startswith("other-00000003") for text in lines) == 2


def test_a_chain_stands_for_its_runs(moment, capsys):
    chains.write(chains.State(chains.FORMAT, "mine-0a1b2c3d", {}))
    (chains.folder("mine-0a1b2c3d") / "chain.json").touch()
    with pytest.raises(UsageError, match="has no runs yet"):
        command.main(["mine-0a1b2c3d"])
    links = {}
    for name, seed in (("hear", 1), ("write", 2)):
        make(Made(seed=seed, items=20, tasks=1), moment)
        links[name] = chains.Standing(since="", run=f"corpus-{seed:08d}")
    chains.write(chains.State(chains.FORMAT, "mine-0a1b2c3d", {**links, "later": chains.Standing(since="")}))
    assert command.main(["mine-0a", "corpus-00000002", "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [run["run"] for run in runs] == ["corpus-00000001", "corpus-00000002"]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_line_is_wider_than_the_terminal(moment, width):
    found = account(submitted(make(Made(bad=0.05, breaks={0: [(20.0, 600.0)]}), moment)))
    for text in account_text.render([found, found], Terminal(width)):
        assert visible(text) <= width, text


def test_an_unknown_run_is_usage(home, moment):
    with pytest.raises(UsageError):
        command.main(["nothing"])
    with pytest.raises(SystemExit):
        command.main([])
