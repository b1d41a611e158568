"""Chains on this machine and on a make-believe Slurm: proven step by step, resumed, stopped, cancelled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.core import merge
from pipelines.core.errors import StorageError, Warned
from pipelines.core.run import Run
from slurm import chain as chains
from slurm import cli
from slurm.chain import command, conductor, doing, show, state
from tests.launch import fake_slurm
from tests.launch.conftest import make_environment
from tests.launch.place import wait_until

RECIPE = """
title = "Two toys"
[values]
manifest = { path = true }
factor = "2"
[[step]]
name = "first"
run = "tone {manifest} --factor {factor}"
most_failed = 0.3
[[step]]
name = "second"
run = "scribe {first.manifest} pages"
"""


@pytest.fixture
def toys(place, monkeypatch):
    monkeypatch.setenv("TOY_SEEN", str(place.root / "seen"))
    monkeypatch.setenv("TOY_PAGES", str(place.root / "pages"))
    (place.root / "toys.toml").write_text(RECIPE)
    return place


def seen(place):
    """How often each item was processed."""
    path = place.root / "seen"
    names = path.read_text().split() if path.exists() else []
    return {name: names.count(name) for name in names}


def the_chain():
    (name,) = state.ids()
    return state.read(name)


def test_to_the_end_and_again(toys):
    manifest = toys.manifest(6)
    status, out, error = toys.run("run", "toys.toml", "manifest=m.json", "--cluster", "local")
    assert status == 0, error
    assert "Two toys: done, 2 steps." in out
    row = json.loads(manifest.read_text().splitlines()[0])
    assert {"tone", "path"} <= set(row)
    assert set(seen(toys).values()) == {2}, "each pipeline has seen each item once"
    status, out, _ = toys.run("run", "toys.toml", "manifest=m.json", "--cluster", "local")
    assert (status, set(seen(toys).values())) == (0, {2})


def test_python_call(toys):
    toys.manifest(3)
    whole = chains.run("toys.toml", {"manifest": "m.json"}, cluster="local", tasks=2)
    assert whole.state == state.DONE
    assert whole.links["second"].results["manifest"] == str(toys.root / "m.json")
    with pytest.raises(TypeError, match="takes no 'clutser'"):
        chains.run("toys.toml", {"manifest": "m.json"}, clutser="local")


def test_only_what_is_missing_anywhere_is_done(toys):
    toys.manifest(5)
    assert cli.main(["run", "toys.toml", "manifest=m.json", "--cluster", "local"]) == 0
    (toys.root / "pages" / "pages" / "00002.txt").unlink()
    assert cli.main(["run", "toys.toml", "manifest=m.json", "--cluster", "local"]) == 0
    assert seen(toys) == {f"{number:05d}.wav": 3 if number == 2 else 2 for number in range(5)}


def test_what_it_cost_and_how_it_stands(toys, capsys):
    toys.manifest(4)
    cli.main(["run", "toys.toml", "manifest=m.json", "--cluster", "local"])
    chain, runs = state.ids()[0], the_chain().runs
    capsys.readouterr()
    assert cli.main(["account", chain, "--json"]) == 0
    assert [one["run"] for one in json.loads(capsys.readouterr().out)["runs"]] == list(runs.values())
    assert cli.main(["status", chain]) == 0
    assert "2 of 2 steps are done" in capsys.readouterr().out
    assert cli.main(["status", chain, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["state"], [step["run"] for step in told["steps"]]) == (state.DONE, list(runs.values()))
    assert cli.main(["report", chain]) == 0
    page = Path(capsys.readouterr().out.strip()).read_text()
    assert page.count('<h1 class="step"') == 2
    assert "Two toys" in page


@pytest.mark.parametrize("broken", [1, 2])
def test_too_many_failures_stop_the_chain(toys, broken, capsys):
    toys.manifest(5, **{"raise": lambda number: "torn" if number < broken else None})
    status = cli.main(["run", "toys.toml", "manifest=m.json", "--cluster", "local"])
    assert status == 1
    first, second = (the_chain().links[name] for name in ("first", "second"))
    if broken == 1:
        assert (first.state, second.state) == (state.DONE, state.DONE)
        assert "1 given up" in first.message
    else:
        assert (first.state, second.state) == (state.STOPPED, state.WAITING)
        assert "2 of 5 items" in capsys.readouterr().err
        assert "torn" in first.message


def test_a_file_that_is_not_its_receipts(toys):
    """Changed, shortened or gone is told; what a later run has added to a manifest is that run's to vouch for."""
    manifest = toys.manifest(5)
    assert cli.main(["run", "toys.toml", "manifest=m.json", "--cluster", "debug"]) == 0
    run = Run.open(the_chain().links["second"].run)
    before = Run.open(the_chain().links["first"].run)
    told = [doing.untrue(each, merge.last_receipt(each)) for each in (run, before)]
    assert told == ["", ""]
    text = manifest.read_text()
    manifest.write_text(text.replace('"loud":', '"lout":', 1))
    assert "m.json has changed since it was merged" in doing.untrue(run, merge.last_receipt(run))
    manifest.write_text(text[:-1])
    assert "m.json has changed since it was merged" in doing.untrue(before, merge.last_receipt(before))
    manifest.unlink()
    assert "m.json is gone" in doing.untrue(run, merge.last_receipt(run))


def test_wrong_options_are_told_before_anything_is_done(toys, capsys):
    toys.manifest(3)
    (toys.root / "toys.toml").write_text(RECIPE.replace("{first.manifest} pages", "{first.manifest} pages --pne x"))
    assert cli.main(["run", "toys.toml", "manifest=m.json", "--cluster", "local"]) == 2
    assert "Did you mean --pen?" in capsys.readouterr().err
    assert toys.runs() == []


@pytest.mark.parametrize("tool", ["wer {first.manifest} --refrence text", "units u --text words", "pairs --by pair"])
def test_wrong_options_of_tools_are_told_before_anything_is_done(toys, capsys, tool):
    toys.manifest(3)
    (toys.root / "toys.toml").write_text(f'{RECIPE}[[step]]\nname = "figures"\nrun = "{tool}"\n')
    assert cli.main(["run", "toys.toml", "manifest=m.json", "--cluster", "local"]) == 2
    assert f"figures has a command line that is refused. usage: voxarray {tool.split()[0]}" in capsys.readouterr().err
    assert toys.runs() == []


def test_dry_run_changes_nothing(toys, capsys):
    toys.manifest(4)
    before = toys.tree()
    assert cli.main(["run", "toys.toml", "manifest=m.json", "--cluster", "local", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "4: 0 done, 4 to do" in out
    assert "after        first" in out
    assert f"outputs      {toys.root / 'm.json'}" in out
    assert toys.tree() == before


def test_in_the_background_and_cancelled(toys, monkeypatch):
    make_environment(toys.root / "envs" / "launcher")
    toys.manifest(4, nap=20)
    status, _, error = toys.run("run", "toys.toml", "manifest=m.json", "--cluster", "local", "--no-wait")
    assert status == 0, error
    wait_until(lambda: list(toys.home.glob("output/runs/*/state/*/*.heartbeat.json")), what="a task at work")
    status, out, _ = toys.run("run", "toys.toml", "manifest=m.json", "--cluster", "local", "--no-wait")
    assert status == 0
    status, out, error = toys.run("cancel", state_ids(toys)[0])
    assert status == 0, error
    assert "Cancelled the chain" in out
    wait_until(lambda: not toys.processes("slurm.chain.conductor"), what="the conductor to end")
    assert not toys.processes("slurm.local")
    toys.manifest(4)
    status, _, error = toys.run("run", "toys.toml", "manifest=m.json", "--cluster", "local", "--no-wait")
    assert status == 0, error
    chain = state_ids(toys)[0]
    wait_until(lambda: json.loads(toys.run("status", chain, "--json")[1])["state"] == state.DONE, what="the chain")


def state_ids(place):
    return [path.parent.name for path in place.home.glob("output/chains/*/chain.json")]


# -- on Slurm


@pytest.fixture
def slurm(toys, cluster):
    make_environment(cluster.root / "envs" / "launcher")
    return cluster


def queue():
    path = fake_slurm.folder() / "queue.json"
    return [line.split("|") for line in json.loads(path.read_text())] if path.exists() else []


def script(number):
    return fake_slurm.options((fake_slurm.folder() / f"{number}.sh").read_text())


def execute(number, *tasks):
    for task in tasks or (None,):
        fake_slurm.execute(number, task)
    fake_slurm.scancel([str(number)])


def test_jobs_wait_for_sweeps_and_go_on_by_themselves(slurm, capsys):
    manifest = slurm.manifest(6)
    assert cli.main(["run", "toys.toml", "manifest=m.json", "--tasks", "2", "--partition", "p"]) == 0
    assert [line[4].split(".")[0] for line in queue()] == ["tone", "tone", "chain"]
    assert script(102)["dependency"] == "afterany:101"
    assert script(102)["partition"] == "p"
    execute(100, 0, 1)
    execute(101)
    execute(102)
    assert the_chain().links["first"].state == state.DONE
    assert [line[4].split(".")[0] for line in queue()] == ["scribe", "scribe", "chain"]
    execute(103, 0, 1)
    execute(104)
    execute(105)
    assert the_chain().state == state.DONE
    assert queue() == []
    assert all("path" in json.loads(line) for line in manifest.read_text().splitlines())
    assert set(seen(slurm).values()) == {2}


def test_environments_are_made_before_the_first_job(slurm, monkeypatch):
    slurm.manifest(2)
    with (slurm.root / "toys.toml").open("a") as file:
        file.write('[[step]]\nname = "third"\nrun = "sample {second.manifest} s"\n')
    made = []
    monkeypatch.setattr(command.environments, "ensure", lambda name: made.append((name, len(queue()))))
    cli.main(["run", "toys.toml", "manifest=m.json", "--tasks", "1"])
    assert made == [("lm", 0)], "the third step's; that of the others is there"
    assert [line[4].split(".")[0] for line in queue()] == ["tone", "tone", "chain"]


def test_a_sweep_that_launches_again_is_waited_for(slurm):
    slurm.manifest(6)
    cli.main(["run", "toys.toml", "manifest=m.json", "--tasks", "2"])
    execute(100, 0)
    execute(101)  # task 1 never ran: a new launch, 103, with a sweep of its own
    execute(102)
    whole = the_chain()
    assert (whole.links["first"].state, whole.links["first"].launch) == (state.RUNNING, 1)
    assert script(whole.links["first"].conductor)["dependency"] == f"afterany:{whole.links['first'].sweep}"


def test_a_launch_that_gives_up_stops_the_chain_and_the_command_goes_on(slurm, monkeypatch):
    slurm.manifest(6)
    cli.main(["run", "toys.toml", "manifest=m.json", "--tasks", "2"])
    monkeypatch.setenv("TOY_DIE_LOADING", "1")
    execute(100, 0, 1)
    for _ in range(8):
        for line in queue():
            if line[4].endswith(".sweep"):
                execute(int(line[0]))
            elif line[4].startswith("tone"):
                execute(int(line[0]), 0, 1)
        for line in queue():
            if line[4].startswith("chain"):
                execute(int(line[0]))
    whole = the_chain()
    assert whole.links["first"].state == state.STOPPED, whole
    assert whole.links["second"].state == state.WAITING
    assert queue() == []
    monkeypatch.delenv("TOY_DIE_LOADING")
    assert cli.main(["run", "toys.toml", "manifest=m.json", "--tasks", "2"]) == 0
    assert [line[4].split(".")[0] for line in queue()] == ["tone", "tone", "chain"]


def test_a_conductor_that_died_is_done_again(slurm):
    slurm.manifest(4)
    cli.main(["run", "toys.toml", "manifest=m.json", "--tasks", "1"])
    execute(100)
    execute(101)
    fake_slurm.scancel(["102"])
    assert cli.main(["run", "toys.toml", "manifest=m.json", "--tasks", "1"]) == 0
    assert [line[4].split(".")[0] for line in queue()] == ["scribe", "scribe", "chain"]
    assert cli.main(["run", "toys.toml", "manifest=m.json", "--tasks", "1"]) == 0
    assert [line[4].split(".")[0] for line in queue()] == ["scribe", "scribe", "chain"], "nothing twice"


def test_a_conductor_that_is_put_back_between_two_steps_is_not_lost(slurm, monkeypatch):
    slurm.manifest(4)
    cli.main(["run", "toys.toml", "manifest=m.json", "--tasks", "1"])
    execute(100)
    execute(101)
    do = doing.do

    def warned(order, whole, link, *how):
        if link.name == "second":
            raise Warned(12)
        do(order, whole, link, *how)

    (chain,) = state.ids()
    with monkeypatch.context() as patch:
        patch.setattr(doing, "do", warned)
        patch.setenv("SLURM_JOB_ID", "102")
        with pytest.raises(Warned):
            conductor.advance(chain, conducting=True)
    assert (the_chain().links["first"].state, the_chain().state) == (state.DONE, state.WAITING)
    assert show.look(chain).state == state.RUNNING, "it is in the queue"
    execute(102)
    assert the_chain().job is None
    assert [line[4].split(".")[0] for line in queue()] == ["scribe", "scribe", "chain"]
    whole = the_chain()
    whole.links["second"].state, whole.job = state.WAITING, "102"
    state.write(whole)
    assert show.look(chain).state == "lost"


def test_a_cancelled_chain_stays_so_until_it_is_taken_up(slurm):
    slurm.manifest(4)
    cli.main(["run", "toys.toml", "manifest=m.json", "--tasks", "1"])
    assert cli.main(["cancel", state.ids()[0]]) == 0
    assert queue() == []
    assert conductor.advance(state.ids()[0], conducting=True).links["second"].state == state.WAITING
    assert cli.main(["run", "toys.toml", "manifest=m.json", "--tasks", "1"]) == 0
    assert len(queue()) == 3


def test_steps_that_do_not_touch_each_other_run_at_once(slurm):
    slurm.manifest(2)
    slurm.manifest(2, name="n.json")
    (slurm.root / "toys.toml").write_text(
        RECIPE + f'[[step]]\nname = "third"\nrun = "tone {slurm.root / "n.json"}"\nafter = []\n'
    )
    cli.main(["run", "toys.toml", "manifest=m.json", "--tasks", "1"])
    assert [line[4].split(".")[0] for line in queue()] == ["tone", "tone", "chain", "tone", "tone", "chain"]


def test_one_manifest_by_two_names_is_extended_by_one_step_at_a_time(slurm):
    """The order cannot be seen in the recipe: an option stands first, the path is another. The files tell."""
    manifest = slurm.manifest(2)
    (slurm.root / "alias.json").symlink_to(manifest)
    third = f'[[step]]\nname = "third"\nrun = "tone --factor 5 {slurm.root / "alias.json"}"\nafter = []\n'
    (slurm.root / "toys.toml").write_text(RECIPE.partition('[[step]]\nname = "second"')[0] + third)
    cli.main(["run", "toys.toml", "manifest=m.json", "--tasks", "1"])
    assert [line[4].split(".")[0] for line in queue()] == ["tone", "tone", "chain"]
    assert "for first, which is at the same manifest" in the_chain().links["third"].message
    execute(100)
    execute(101)
    execute(102)
    whole = the_chain()
    assert (whole.links["first"].state, whole.links["third"].state) == (state.DONE, state.RUNNING)
    assert [line[4].split(".")[0] for line in queue()] == ["tone", "tone", "chain"]


def test_refused_submissions_are_told(slurm, capsys):
    slurm.manifest(2)
    Path(fake_slurm.folder()).mkdir(exist_ok=True)
    (fake_slurm.folder() / "refuse").write_text("2\nsbatch: error: Batch job submission failed: Invalid qos\n")
    assert cli.main(["run", "toys.toml", "manifest=m.json", "--tasks", "1"]) == 1
    assert "refused the job that takes the chain on" in the_chain().links["first"].message
    assert "Name a QOS" in capsys.readouterr().err


def test_what_may_pass_is_waited_for(slurm, monkeypatch):
    """A disk that is full while a conductor is at work: it tries again, and in the end says why it stopped."""
    slurm.manifest(2)
    cli.main(["run", "toys.toml", "manifest=m.json", "--tasks", "1"])
    execute(100)
    execute(101)
    full = [True, True]
    monkeypatch.setattr(conductor, "_PAUSES_S", (0.01, 0.01, 0.01))

    def begin(decision, real=doing.launch.start):
        if full.pop(0) if full else False:
            raise StorageError("The disk is full.")
        return real(decision)

    monkeypatch.setattr(doing.launch, "start", begin)
    assert conductor.main([the_chain().id]) == 0
    assert full == []
    assert the_chain().links["second"].state == state.RUNNING
    full[:] = [True] * 4
    whole = the_chain()
    whole.links["second"].state = state.WAITING
    state.write(whole)
    assert conductor.main([whole.id]) == 1
    assert full == [], "three more tries, and no others"
    assert "The disk is full" in the_chain().links["second"].message
