"""A training that was stopped or killed, anywhere and often, comes to the same bits as one that nothing disturbed."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from pipelines.core import store
from pipelines.core.errors import ItemError, Unfinished, UsageError
from pipelines.language import files
from pipelines.lm import checkpoint, training
from tests.core.world import REPOSITORY, seed
from tests.lm import making

KINDS = [{"model": "lstm"}, {"model": "transformer", "max_length": 16, "accumulate": 2}]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    _, drawn = making.sequences(120)
    return making.corpus(tmp_path_factory.mktemp("corpus"), drawn)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind["model"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def undisturbed(corpus, kind, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    one = making.trainer(corpus, folder, **kind)
    one.run()
    return one, folder


def best(folder):
    trained = files.describe(folder / files.BEST)
    return making.weights(files.load(trained, torch.device("cpu"))), trained.description


def assert_same(one, folder, undisturbed):
    other, its = undisturbed
    assert one.progress.history == other.progress.history
    assert one.progress.step == other.progress.step
    assert one.progress.tokens_computed == other.progress.tokens_computed > one.progress.tokens_read
    assert making.weights(one.model) == making.weights(other.model)
    assert best(folder) == best(its)


def test_stopped_at_any_steps(corpus, kind, undisturbed, tmp_path):
    die = random.Random(seed())
    attempts, last = 0, 0
    while True:
        left = die.choice([1, 2, 3, 5])
        asked = iter(range(10_000))
        one = making.trainer(corpus, tmp_path, lambda asked=asked, left=left: next(asked) + 1 >= left, **kind)
        attempts += 1
        assert one.progress.step >= last
        last = one.progress.step
        try:
            one.run()
        except Unfinished:
            continue
        break
    assert attempts > 5
    assert_same(one, tmp_path, undisturbed)


class Killed(BaseException):
    """What nothing catches."""


def test_killed_around_every_writing(corpus, kind, undisturbed, tmp_path, monkeypatch):
    """Before and after each file that is written: the best model without the state that knows of it, and so on."""
    monkeypatch.setattr(training, "SAVE_EVERY_S", 0.0)
    real, die = store.os.replace, random.Random(seed())

    def replace(source, target):
        if die.random() < 0.1:
            raise Killed
        real(source, target)
        if die.random() < 0.1:
            raise Killed

    deaths = 0
    while True:
        one = making.trainer(corpus, tmp_path, **kind)
        monkeypatch.setattr(store.os, "replace", replace)
        try:
            one.run()
        except Killed:
            deaths += 1
            continue
        finally:
            monkeypatch.setattr(store.os, "replace", real)
        break
    assert deaths > 3
    assert_same(one, tmp_path, undisturbed)


def test_a_finished_training_is_left_alone(corpus, kind, undisturbed):
    one, folder = undisturbed
    stamps = [(folder / name).stat().st_mtime_ns for name in (checkpoint.LAST, files.BEST)]
    again = making.trainer(corpus, folder, **kind)
    assert again.run() == one.progress
    assert stamps == [(folder / name).stat().st_mtime_ns for name in (checkpoint.LAST, files.BEST)]


def test_other_settings_other_data_and_damage_are_refused(corpus, kind, undisturbed, tmp_path_factory, tmp_path):
    _, folder = undisturbed
    with pytest.raises(UsageError, match=r"other settings \(learning_rate 0.01, now 0.02\)"):
        making.trainer(corpus, folder, **{**kind, "learning_rate": 0.02})
    _, drawn = making.sequences(121)
    other = making.corpus(tmp_path_factory.mktemp("other"), drawn)
    with pytest.raises(UsageError, match=r"on other data.*--fresh"):
        making.trainer(other, folder, **kind)
    (tmp_path / checkpoint.LAST).write_bytes((folder / checkpoint.LAST).read_bytes()[:-1000])
    with pytest.raises(UsageError, match="cannot be read"):
        making.trainer(corpus, tmp_path, **kind)


def test_a_loss_that_is_no_number_is_the_items_own_fault(corpus, kind, tmp_path, monkeypatch):
    one = making.trainer(corpus, tmp_path, **kind)
    real = training.Trainer._nats
    monkeypatch.setattr(
        training.Trainer,
        "_nats",
        lambda self, numbers: real(self, numbers) * (float("nan") if self.progress.step == 4 else 1),
    )
    with pytest.raises(ItemError, match=r"no longer a number at step 5.*--learning-rate"):
        one.run()


def test_early_stopping(corpus, tmp_path):
    one = making.trainer(corpus, tmp_path, early_stopping=2, num_epochs=100, learning_rate=0.3, warmup_steps=0)
    progress = one.run()
    bits = [entry["bits_per_unit"] for entry in progress.history]
    assert len(bits) < 100
    assert min(bits) == bits[-3] == progress.best == best(tmp_path)[1].figures["bits_per_unit"]


def command(stage, manifest, *options):
    """A run in a process group of its own, as a user gives it."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.lm", str(manifest), *making.FLAGS, *options],
        env={**stage.variables, "VOXARRAY_HEARTBEAT_S": "0.2"},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(condition, seconds=180):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def metrics(stage):
    found = (stage.home / "output" / "checkpoints").glob("*/*/metrics.json")
    (path,) = (path for path in found if ".until-" not in path.parent.name)
    found = json.loads(path.read_text())
    return {name: found[name] for name in ("history", "steps", "epochs", "bits_per_unit")}, best(path.parent)


def test_through_the_engine_warned_and_killed(stage):
    """SIGTERM in the middle, kill -9 of the whole group, then left alone; against a run that nothing disturbed."""
    _, drawn = making.sequences(400)
    manifest, _ = making.write(stage.root / "data", drawn, 12)
    options = ["--num-epochs", "12"]
    checkpoints = stage.home / "output" / "checkpoints"
    for number in (signal.SIGTERM, signal.SIGKILL):
        before = {path: path.stat().st_mtime_ns for path in checkpoints.glob("*/*/last.pt")}
        process = command(stage, manifest, *options)
        wait_for(lambda before=before: {p: p.stat().st_mtime_ns for p in checkpoints.glob("*/*/last.pt")} != before)
        os.killpg(process.pid, number)
        process.communicate(timeout=180)
        assert process.returncode != 0
        assert not list(checkpoints.glob("*/*/metrics.json"))
    last = command(stage, manifest, *options)
    said, _ = last.communicate(timeout=180)
    assert last.returncode == 0, said
    disturbed = metrics(stage)
    told = "".join(path.read_text() for path in stage.home.glob("logs/**/task_0000.log"))
    assert "Going on from step" in told
    assert re.search(r" \d+ tokens were read; \d\d\.\d % of the tokens that were computed were real\.", told)
    status, said = stage.give("lm", manifest, *making.FLAGS, *options, "--fresh")
    assert status == 0, said
    assert list(checkpoints.glob("*/*.until-*")), "what was there before is kept aside"
    assert metrics(stage) == disturbed
