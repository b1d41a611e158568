"""What a run cost, from made runs with and without a make-believe sacct."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_accounts import line, said, say_the_job, step, submitted
from made_runs import NOON, Made, Maker, make

from pipelines.core import paths
from pipelines.core.run import Run
from slurm.view.account import Account, account
from slurm.view.account_sacct import Answer


@pytest.fixture
def sacct(home, monkeypatch):
    """Make a stand-in for sacct that prints these lines, with that exit status; it notes how it was called."""
    folder = home / "bin"
    folder.mkdir()

    def tell(*lines: str, status: int = 0, error: str = "") -> None:
        script = folder / "sacct"
        text = "\n".join(lines)
        script.write_text(
            f"#!/bin/sh\necho \"$SLURM_TIME_FORMAT $@\" >>{home}/asked\ncat <<'END'\n{text}\nEND\n"
            f"echo '{error}' >&2\nexit {status}\n"
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    return tell


def test_from_files_alone(moment):
    """Four tasks of 8 processors that used one each: what the launcher asked for and the heartbeats tell it all."""
    maker = make(Made(), moment)
    found = account(submitted(maker))
    cost, audio = found.cost, sum(maker.audio)
    assert found.audio_seconds == pytest.approx(audio)
    assert (found.items, found.tasks, found.attempts, found.launches) == (400, 4, 4, 1)
    assert cost.time_s == pytest.approx(audio / maker.made.speed, rel=0.1)
    assert cost.cpu_s == pytest.approx(8 * cost.time_s)
    assert cost.gpu_s == pytest.approx(cost.time_s)
    assert cost.used_s == pytest.approx(0.98 * cost.time_s)
    assert cost.rss_mb is None
    assert found.waste.cut_short == 0
    assert (found.sources.sacct, found.sources.files, found.sources.used) == (0, 4, "heartbeats")
    text = said(found)
    assert "Times are from heartbeats and parts (there is no sacct here)" in text
    assert "12 %" in text, "of the processors"
    assert "8 GB not known" in text


@pytest.mark.parametrize(("argv", "cpus"), [(["vad", "d"], 1), (["vad", "d", "--cpus", "2"], 2)])
def test_one_process_on_this_machine(moment, sacct, home, argv, cpus):
    sacct(line("100_0", NOON, NOON + 99))
    maker = Maker(Made(cluster="process"), moment)
    maker.plan()
    maker.launch(argv=argv)
    maker.work()
    say_the_job(maker, None)
    found = account(Run.open(maker.made.run_id()))
    assert found.cost.cpu_s == pytest.approx(cpus * found.cost.time_s)
    assert (found.cost.mem_mb, found.cost.limit_s, found.cost.gpu_s) == (None, None, None)
    assert not (home / "asked").exists(), "there is nothing to ask it"


@pytest.mark.parametrize("name", ["tone", "interactive"])
def test_one_process_in_a_job(moment, sacct, name):
    """The job of a plain script is the run's; that of a shell is not."""
    maker = Maker(Made(cluster="process", tasks=1), moment)
    maker.plan()
    maker.launch()
    maker.work()
    say_the_job(maker, "77")
    sacct(line("77", NOON - 20, NOON + 100, name=name, cpu="01:00"))
    found = account(Run.open(maker.made.run_id()))
    expected = (120, 960, 60) if name == "tone" else (found.held[0].elapsed_s, None, found.held[0].cpu_s)
    assert (found.cost.time_s, found.cost.cpu_s, found.cost.used_s) == expected


def test_on_this_machine_nobody_is_held_to_memory_and_time(moment):
    found = account(submitted(make(Made(), moment), cluster="local"))
    assert (found.cost.cpus, found.cost.mem_mb, found.cost.limit_s) == (8, None, None)


def test_sacct_says_it_better(moment, sacct, home):
    maker = make(Made(), moment)
    run = submitted(maker)
    sacct(
        *(
            entry
            for task in range(4)
            for entry in (
                line(f"100_{task}", NOON - 20, NOON + 100, cpu="02:12.000"),
                step(f"100_{task}.batch", "1024K"),
                step(f"100_{task}.0", f"{task + 1}00M"),
            )
        ),
        line("101", NOON + 100, NOON + 104, name="tone.corpus-00000001.000.sweep", cpus=1, tres="cpu=1,mem=4G"),
        step("101.batch", "4G"),
    )
    found = account(run)
    cost = found.cost
    assert (home / "asked").read_text().split()[0] == "%s"
    assert "--duplicates" in (home / "asked").read_text()
    assert (cost.time_s, cost.cpu_s, cost.gpu_s, cost.used_s) == (480, 480 * 8, 480, 528)
    assert (cost.mem_mb, cost.rss_mb, cost.limit_s, cost.longest_s, cost.sweep_cpu_s) == (8192, 400, 14400, 120, 4)
    assert found.states == {"COMPLETED": 4}
    alive = sum(stretch.elapsed_s for stretch in account_of_files(run).held)
    assert found.waste.around_s == pytest.approx(480 - alive, abs=0.1)
    text = said(found)
    assert "Times, processors, GPUs and memory are from sacct. Processor time is from sacct." in text
    assert "Tasks used 1.1 of 8 processors: --cpus 2 would do." in text
    assert "No task took more than 400 MB of 8 GB: --mem 512M would do." in text


def account_of_files(run: Run) -> Account:
    """The same without sacct."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("slurm.view.account_sacct.ask", lambda *_: Answer([], [0], "not asked"))
        return account(run)


def test_a_cluster_that_counts_no_processes(moment, sacct):
    """TotalCPU is nothing there, and so processor time is the heartbeats'."""
    run = submitted(make(Made(), moment))
    sacct(*(line(f"100_{task}", NOON - 20, NOON + 100) for task in range(4)))
    found = account(run)
    assert found.cost.time_s == 480
    assert found.cost.used_s == pytest.approx(account_of_files(run).cost.used_s)
    assert found.sources.used == "heartbeats"
    assert "Processor time is from heartbeats" in said(found)


def test_what_sacct_does_not_know_is_taken_from_the_files(moment, sacct):
    run = submitted(make(Made(), moment))
    sacct(
        line("100_0", NOON - 20, NOON + 100, cpu="01:40"),
        line("100_[1-3]", NOON, NOON).replace(f"{NOON:.0f}", "Unknown"),
    )
    found = account(run)
    assert (found.sources.sacct, found.sources.files, found.sources.used) == (1, 3, "both")
    assert found.cost.time_s > 120
    assert "Times of 3 tasks are from heartbeats" in said(found)


@pytest.mark.parametrize(
    ("lines", "status", "error", "why"),
    [
        (
            (),
            1,
            "Slurm accounting storage is disabled",
            "sacct does not answer (Slurm accounting storage is disabled)",
        ),
        ((), 0, "", "sacct knows none of its jobs"),
        (("nonsense", "100_0|x"), 0, "", "sacct knows none of its jobs"),
        ((line("100_0", NOON, NOON + 9, name="another's"),), 0, "", "sacct knows none of its jobs"),
        ((line("100_0", NOON - 1e6, NOON - 9e5),), 0, "", "sacct knows none of its jobs"),
    ],
)
def test_without_an_answer_the_files_have_to_do(moment, sacct, lines, status, error, why):
    run = submitted(make(Made(), moment))
    sacct(*lines, status=status, error=error)
    found = account(run)
    assert found.sources.silence == why
    assert found.cost == account_of_files(run).cost
    assert why in said(found)


def test_a_plain_array_is_found_by_its_job(moment, sacct):
    maker = Maker(Made(tasks=2), moment)
    maker.plan()
    maker.launch(job="100", cluster="sbatch")
    maker.work()
    run = Run.open(maker.made.run_id())
    unknown = account(run)
    assert unknown.cost.cpu_s is None, "a plain array's request is on no record"
    assert unknown.cost.used_s
    assert "not known" in said(unknown)
    sacct(*(line(f"100_{task}", NOON - 20, NOON + 150, name="vad", cpu="01:00") for task in range(2)))
    found = account(run)
    assert (found.cost.time_s, found.sources.sacct) == (340, 2)


def test_requeued_lives_of_a_job_are_counted_apart(moment, sacct):
    """A preempted task: what it did after its last part is lost, and the time in the queue costs nothing."""
    maker = make(Made(tasks=1, breaks={0: [(20.0, 600.0)]}), moment)
    run = submitted(maker)
    by_files = account(run)
    assert (by_files.attempts, by_files.waste.cut_short) == (2, 1)
    assert by_files.cost.time_s == pytest.approx(sum(maker.audio) / 200, rel=0.1)
    begun, again = (stretch.start for stretch in by_files.held)
    stopped = by_files.held[0].end
    sacct(
        line("100_0", begun - 5, stopped + 30, state="PREEMPTED"),
        line("100_0", again - 5, moment.now, cpu="00:50"),
    )
    found = account(run)
    assert found.states == {"PREEMPTED": 1, "COMPLETED": 1}
    assert found.cost.time_s == pytest.approx(by_files.cost.time_s + 45, abs=5)
    assert found.waste.lost_s == pytest.approx(30, abs=1)
    assert found.waste.around_s == pytest.approx(10, abs=6)
    assert found.cost.used_s == 50, "what the first life used is not known, and not guessed"
    assert found.cost.used_of_s == pytest.approx(moment.now - again + 5, abs=1)


def test_an_attempt_that_died_loses_what_it_had_not_published(moment):
    maker = Maker(Made(tasks=2, silent={0: 12.0}), moment)
    maker.plan()
    maker.launch()
    maker.work()
    moment.now += 300
    found = account(submitted(maker))
    lost = found.held[0]
    assert found.waste.cut_short == 1
    assert 0 < found.waste.lost_s < lost.elapsed_s
    assert not found.at_work


def test_while_it_is_at_work_nothing_is_lost(moment):
    found = account(submitted(make(Made(items=2000, speed=20, until=100), moment)))
    assert found.at_work
    assert (found.waste.cut_short, found.waste.lost_s) == (0, 0)
    assert "(at work: so far)" in said(found)


def test_failed_tries_and_spare_rows_are_counted(moment):
    found = account(submitted(make(Made(bad=0.05), moment)))
    assert found.waste.tries == 2 * (400 - found.items)
    assert f"retries {found.waste.tries} tries of items that failed" in said(found)


def test_padding_is_what_the_tasks_told(moment):
    run = submitted(make(Made(tasks=2), moment))
    for task, text in enumerate(
        (
            "300 pieces in 20 batches; 90.0 % of the audio that was computed was real.",
            "none\n100 pieces in 9 batches; 70.0 % of the audio that was computed was real.",
        )
    ):
        path = paths.task_log(run.id, 0, task)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"2026-01-01T00:00:00Z INFO {text}\n")
    found = account(run)
    assert found.waste.padding == pytest.approx((300 * 0.1 + 100 * 0.3) / 400)
    assert "padding" in said(found)


def test_pipelines_tell_of_padding_in_the_words_that_are_looked_for():
    repository = Path(__file__).resolve().parents[2]
    asr = (repository / "pipelines" / "asr" / "processor.py").read_text()
    assert '"%d pieces in %d batches; %.1f %% of the audio that was computed was real."' in asr
    lm = (repository / "pipelines" / "lm" / "one.py").read_text()
    assert '"%d tokens were read; %.1f %% of the tokens that were computed were real."' in lm


def test_a_run_that_has_not_begun(moment):
    maker = Maker(Made(items=8, tasks=2), moment)
    maker.plan()
    found = account(Run.open(maker.made.run_id()))
    assert "No task of it has worked yet" in said(found)
    maker.launch()
    assert account(Run.open(maker.made.run_id())).cost.cpu_s is None
