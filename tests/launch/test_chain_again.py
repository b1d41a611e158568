"""Chains that are taken up again, cancelled in the middle, or seen while they work."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.core import lock, merge
from pipelines.core.errors import UsageError
from pipelines.core.run import Run
from slurm import chain as chains
from slurm import cli, launch, vouching
from slurm.chain import ending, following, state
from slurm.view import standing
from tests.launch.place import wait_until
from tests.launch.test_chain_local import execute, queue, slurm, the_chain, toys

__all__ = ["slurm", "toys"]


def kinds():
    return [line[4].split(".")[0] for line in queue()]


def test_a_manifest_that_grew_is_done_to_the_end_by_one_command(slurm):
    """What a step's sweep said in an earlier round is no answer to the new one."""
    manifest = slurm.manifest(4)
    cli.main(["run", "toys.toml", "manifest=m.json", "--tasks", "1"])
    for number in range(100, 106):
        execute(number)
    assert the_chain().state == state.DONE
    with manifest.open("a") as file:
        file.write(json.dumps({"audio_filepath": "/data/new.wav", "duration": 1.0}) + "\n")
    assert cli.main(["run", "toys.toml", "manifest=m.json", "--tasks", "1"]) == 0
    assert kinds() == ["tone", "tone", "chain"]
    for number in range(106, 112):
        execute(number)
    assert the_chain().state == state.DONE, the_chain()
    assert all("path" in json.loads(line) for line in manifest.read_text().splitlines())


def test_cancelled_while_a_step_is_being_submitted(slurm, monkeypatch):
    """Whoever submits sees the marker afterwards, and ends what `cancel` could not know of."""
    slurm.manifest(4)
    start = launch.start

    def cancelled_meanwhile(decision):
        started = start(decision)
        monkeypatch.setattr(ending, "_WAIT_S", 0.1)  # it is this process that holds the lock
        assert cli.main(["cancel", state.ids()[0]]) == 0
        return started

    monkeypatch.setattr(launch, "start", cancelled_meanwhile)
    cli.main(["run", "toys.toml", "manifest=m.json", "--tasks", "1"])
    assert queue() == []


def test_cancelled_when_its_conductor_was_killed_while_it_submitted(slurm, monkeypatch):
    """The array is there, and the chain's state knows nothing of it."""
    slurm.manifest(4)

    class KilledError(BaseException):
        pass

    def killed(*_):
        raise KilledError

    monkeypatch.setattr("slurm.chain.doing._note", killed)
    with pytest.raises(KilledError):
        cli.main(["run", "toys.toml", "manifest=m.json", "--tasks", "1"])
    assert kinds() == ["tone", "tone"]
    monkeypatch.setattr("slurm.chain.ending.lock.tried", busy_once(monkeypatch))
    assert cli.main(["cancel", state.ids()[0]]) == 0
    assert queue() == []


def busy_once(monkeypatch):
    """The lock is held when it is tried first, as by a conductor that works."""
    from contextlib import contextmanager

    from pipelines.core import lock

    tried = lock.tried

    @contextmanager
    def busy(_):
        monkeypatch.setattr("slurm.chain.ending.lock.tried", tried)
        yield False

    return busy


def test_a_step_at_work_on_this_machine_is_seen_and_cancelled(toys):
    """Also where Python called it, and not the command."""
    toys.manifest(4, nap=1000)
    code = "import sys; from slurm import chain; chain.run('toys.toml', {'manifest': 'm.json'}, cluster='local')"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=toys.root)
    try:
        wait_until(lambda: list(toys.home.glob("output/runs/*/state/*/*.heartbeat.json")), what="a task")
        wait_until(lambda: state.ids() and the_chain().links["first"].run, what="the step to be noted")
        (name,) = state.ids()
        shown = json.loads(toys.run("status", name, "--json")[1])
        assert shown["state"] == "running"
        assert shown["steps"][0]["state"] == "running"
        assert shown["steps"][0]["run"] == the_chain().links["first"].run
        assert following.conductor_here(name) == process.pid
        status, _, error = toys.run("cancel", name)
        assert status == 0, error
        process.wait(180)
        assert following.conductor_here(name) is None
        assert not toys.processes("slurm.local")
        assert json.loads(toys.run("status", name, "--json")[1])["state"] == "cancelled"
    finally:
        process.kill()
        process.wait()


def test_a_stranger_that_has_the_conductors_number_is_left_alone(toys):
    toys.manifest(1)
    assert cli.main(["run", "toys.toml", "manifest=m.json", "--cluster", "local"]) == 0
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "run"])
    try:
        whole = the_chain()
        assert whole.pid is None, "nobody conducts a chain that is done"
        whole.pid, whole.host, whole.began = stranger.pid, socket.gethostname(), "1"
        state.write(whole)
        assert following.conductor_here(whole.id) is None
        assert cli.main(["run", "toys.toml", "manifest=m.json", "--cluster", "local"]) == 0
        assert cli.main(["cancel", whole.id]) == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_resources_that_cannot_be_are_told_before_anything_is_done(toys, capsys):
    toys.manifest(1)
    for flag in ("--tasks", "--max-parallel"):
        assert cli.main(["run", "toys.toml", "manifest=m.json", "--cluster", "local", flag, "abc"]) == 2
        assert "whole number" in capsys.readouterr().err
    (toys.root / "toys.toml").write_text((toys.root / "toys.toml").read_text() + 'launch = "--mem lots"\n')
    assert cli.main(["run", "toys.toml", "manifest=m.json", "--cluster", "local"]) == 2
    assert "second" in capsys.readouterr().err
    with pytest.raises(UsageError, match="no cluster 'slrum'"):
        chains.run(toys.root / "toys.toml", {"manifest": "m.json"}, cluster="slrum")
    assert toys.runs() == []


def test_what_a_tool_says_when_it_fails_is_told(toys, capsys):
    toys.manifest(1)
    with (toys.root / "toys.toml").open("a") as file:
        file.write('[[step]]\nname = "third"\nrun = "units nowhere"\n')
    assert cli.main(["run", "toys.toml", "manifest=m.json", "--cluster", "local"]) == 1
    third = the_chain().links["third"]
    assert third.state == state.STOPPED
    assert "nowhere" in third.message, third.message
    assert not Path(state.output_path(the_chain().id, "third")).exists()


def test_a_chain_that_another_machine_conducts_is_left_to_it(toys, capsys):
    """Its process cannot be seen from here, and its lock can."""
    toys.manifest(1)
    assert cli.main(["run", "toys.toml", "manifest=m.json", "--cluster", "local"]) == 0
    before = the_chain()
    with lock.held(state.folder(before.id) / "chain.lock", 0, "The chain"):
        assert cli.main(["run", "toys.toml", "manifest=m.json", "--cluster", "local", "--no-wait"]) == 0
    assert "is at work already" in capsys.readouterr().err
    assert the_chain() == before


LISTS = """
[values]
recordings = { path = true }
[[step]]
name = "list"
run = "chime {recordings} {metadata}/talk"
[[step]]
name = "tones"
run = "tone {metadata}/talk.json"
"""


def recordings(place, name, count):
    folder = place.root / name
    folder.mkdir()
    for number in range(count):
        (folder / f"{name}{number}.wav").write_bytes(b"x")
    return folder


def test_who_vouches_for_a_file_extends_it(toys):
    """Not whoever wrote another in its place, of other recordings and under the same name."""
    manifest = toys.manifest(3)
    assert cli.main(["tone", str(manifest), "--cluster", "local"]) == 0
    assert cli.main(["chime", str(recordings(toys, "a", 2)), str(toys.root / "out"), "--cluster", "local"]) == 0
    tone, chime = (Run.open(next(run for run in toys.runs() if run.startswith(name))) for name in ("m-", "out"))
    receipt = json.loads((chime.folder / "merged.json").read_text())
    receipt["outputs"] = [{**receipt["outputs"][0], "path": str(manifest), "bytes": manifest.stat().st_size}]
    (chime.folder / "merged.json").write_text(json.dumps(receipt))
    assert not vouching.is_vouched_for(manifest, tone)
    assert cli.main(["scribe", str(manifest), "pages", "--cluster", "local"]) == 0
    assert vouching.is_vouched_for(manifest, tone)


def test_audio_that_was_redone_counts_once(toys):
    manifest = toys.manifest(3)
    assert cli.main(["tone", str(manifest), "--cluster", "local"]) == 0
    run = Run.open(toys.runs()[0])
    receipt = json.loads((run.folder / "merged.json").read_text())
    assert standing.once(12.5, merge.last_receipt(run)) == receipt["manifest"]["audio_seconds"] == 6.0
    assert standing.once(5.0, merge.last_receipt(run)) == 5.0
    assert standing.once(12.5, None) == 12.5


def test_a_chain_that_is_done_is_not_cancelled(toys, capsys):
    toys.manifest(1)
    assert cli.main(["run", "toys.toml", "manifest=m.json", "--cluster", "local"]) == 0
    assert cli.main(["cancel", the_chain().id]) == 0
    assert "nothing to cancel" in capsys.readouterr().out
    assert not state.cancelled_path(the_chain().id).exists()


def test_a_dry_run_of_what_cannot_begin_is_an_error(toys, capsys):
    (toys.root / "lists.toml").write_text(LISTS)
    assert cli.main(["run", "lists.toml", "recordings=/nowhere", "--cluster", "local", "--dry-run"]) == 2
    assert "/nowhere does not exist" in capsys.readouterr().err


def test_a_directory_that_shrank_is_merged(toys):
    folder = recordings(toys, "a", 4)
    command = ["chime", str(folder), str(toys.root / "out"), "--cluster", "local"]
    assert cli.main(command) == 0
    (folder / "a0.wav").unlink()
    assert cli.main(command) == 0
    shown = json.loads(toys.run("status", toys.runs()[0], "--json")[1])
    assert (shown["state"], shown["items"]) == ("merged", 3)
