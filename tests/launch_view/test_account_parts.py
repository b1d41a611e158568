"""The pieces of an account: sacct's words, what parts tell of an attempt, and what is advised."""

from __future__ import annotations

import msgspec
import pytest

from pipelines.core.parts import Header
from pipelines.core.run import Run
from slurm.view import account_sacct, account_work
from slurm.view.account import Account, Sources, Waste
from slurm.view.account_advice import advice, gigabytes
from slurm.view.account_cost import cost
from slurm.view.account_sacct import Stretch
from slurm.view.headers import PartFile


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:00.512", 0.512), ("12:34", 754), ("01:02:03", 3723), ("2-01:02:03", 176523), ("1-00:00:00.5", 86400.5),
        ("", 0), ("INVALID", 0), ("5", 0), ("a:b", 0), ("x-00:10", 0),
    ],
)  # fmt: skip
def test_processor_time(text, seconds):
    assert account_sacct.seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "megabytes"),
    [
        ("1024K", 1), ("1.5G", 1536), ("300M", 300), ("1T", 2**20), ("1048576", 1), ("8Gn", 8192), ("", None),
        ("0", None), ("?", None),
    ],
)  # fmt: skip
def test_memory(text, megabytes):
    assert account_sacct.megabytes(text) == megabytes


@pytest.mark.parametrize(("asked", "held"), [("2Gc", 8192), ("2Gn", 2048), ("2G", 2048)])
def test_memory_asked_for_a_processor_or_a_node(asked, held):
    known = {"7": account_sacct._Known(0, 0, None, 0.0, False)}
    text = f"7|COMPLETED|100|200|100|4|cpu=4,node=1|{asked}|UNLIMITED|00:10|||x"
    (found,) = account_sacct.parsed(text, known)
    assert (found.mem_mb, found.limit_s, found.gpus, found.task) == (held, None, None, 0)


def test_steps_go_to_the_allocation_before_them():
    known = {"7": account_sacct._Known(0, 0, None, 0.0, True), "8": account_sacct._Known(0, None, None, 0.0, False)}
    lines = [
        "7_0|REQUEUED|100|200|100|4|mem=1G|1G|60|00:10||x", "7_0.batch|CANCELLED|100|200|100|4||||00:10|100M|batch",
        "7_0|RUNNING|300|Unknown|50|4|mem=1G|1G|60|00:00||x", "7_0.0|RUNNING|300|Unknown|50|4|||||200M|python",
        "9_0|COMPLETED|100|200|100|4|mem=1G|1G|60|00:10||x", "9_0.batch|COMPLETED|100|200|100|4||||00:10|900M|batch",
        "8|CANCELLED by 0|300|310|10|1|mem=4G|4G|30|00:01||x",
    ]  # fmt: skip
    first, second, sweep = account_sacct.parsed("\n".join(lines), known)
    assert [(each.state, each.task, each.rss_mb, each.end) for each in (first, second, sweep)] == [
        ("REQUEUED", 0, 100, 200), ("RUNNING", 0, 200, None), ("CANCELLED", None, None, 310),
    ]  # fmt: skip


def header(started: float, published: float, sequence: int = 0, **changes) -> PartFile:
    value = Header(
        "run", 0, 0, sequence, "node-1-a", "node", rows=10, failed=0, first=0, last=9, audio_seconds=100.0, crc32=0,
        started=started, published=published,
    )  # fmt: skip
    return PartFile(None, msgspec.structs.replace(value, **changes))


def test_loading_is_what_the_first_part_took_longer():
    files = [header(0, 50), header(50, 70, 1), header(70, 90, 2)]
    (work,) = account_work.works(files, [])
    assert work.loading_s == pytest.approx(30)
    assert (work.wall_s, work.over, work.done) == (90, True, 30)


def test_loading_is_counted_in_rows_where_durations_are_unknown():
    files = [header(0, 50, audio_seconds=0.0), header(50, 70, 1, audio_seconds=0.0, rows=20)]
    (work,) = account_work.works(files, [])
    assert work.loading_s == pytest.approx(40)


def test_one_part_tells_nothing_of_loading():
    (work,) = account_work.works([header(0, 50)], [])
    assert work.loading_s is None


def test_a_part_made_of_a_journal_does_not_lengthen_a_life():
    """It was published hours later, by the next attempt; and what it holds was not lost."""
    (work,) = account_work.works([header(0, 50), header(5000, 5000.01, 1)], [])
    assert (work.wall_s, work.rescued, work.lost_s(70)) == (50, True, 0)


def test_a_journal_alone_tells_that_there_was_an_attempt_and_not_how_long():
    (work,) = account_work.works([header(5000, 5000.01)], [])
    assert (work.start, work.wall_s, work.done) == (None, 0, 10)


def test_a_supervisors_strike_is_no_attempt():
    assert account_work.works([header(5000, 5000.0, rows=1, failed=1)], []) == []


def test_what_was_computed_after_the_last_part_is_lost():
    (work,) = account_work.works([header(0, 50)], [])
    assert (work.lost_s(), work.lost_s(80)) == (0, 30)


def an_account(states=None, waste=None, tasks=4, used="sacct", **stretch) -> Account:
    held = [
        Stretch(0, task, "COMPLETED", 0.0, 3600.0, **{"elapsed_s": 3600.0, "cpus": 8, "gpus": 0, **stretch})
        for task in range(tasks)
    ]
    return Account(
        "run", "tone", 100, 3600.0, 1, tasks, tasks, cost(held), waste or Waste(), Sources(tasks, 0, None, used),
        states or {}, at_work=False, held=held,
    )  # fmt: skip


LATE = "1 job met the time limit: --time 2:00:00, or more tasks (--tasks)."
FULL = "2 jobs ran out of memory: --mem 6G, or fewer --cpus that share it."
EARLY = "The longest task took 1 h of 24 h: --time 2:00:00 would do, and shorter jobs start sooner."
SLOW = "Loading took 50 % of the tasks' time: fewer, longer tasks load less often (--tasks 1)."
LOST = "3 attempts cut short lost 50 % of the tasks' time: `./voxarray logs run --errors` tells why they ended."
PADDED = "40 % of what was computed was padding: fewer --tasks give each more items to sort."


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (an_account(cpu_s=3960.0), ["Tasks used 1.1 of 8 processors: --cpus 2 would do."]),
        (an_account(cpu_s=3960.0, used="heartbeats"), []),
        (an_account(cpu_s=3960.0, used="both"), []),
        (an_account(cpu_s=8 * 3000.0), []),
        (an_account(cpu_s=3600.0, cpus=2), []),
        (an_account(cpus=None), []),
        (an_account(mem_mb=65536.0, rss_mb=3000.0), ["No task took more than 2.9 GB of 64 GB: --mem 4G would do."]),
        (an_account(mem_mb=4096.0, rss_mb=3000.0), []),
        (an_account(mem_mb=1024.0, rss_mb=100.0), []),
        (an_account(limit_s=86400.0), [EARLY]),
        (an_account(limit_s=7200.0), []),
        (an_account({"OUT_OF_MEMORY": 2}, mem_mb=4096.0), [FULL]),
        (an_account({"TIMEOUT": 1}, limit_s=3600.0), [LATE]),
        (an_account(waste=Waste(loading_s=7200.0, loading_of=4)), [SLOW]),
        (an_account(waste=Waste(lost_s=7200.0, cut_short=3)), [LOST]),
        (an_account(waste=Waste(padding=0.4)), [PADDED]),
        (an_account(elapsed_s=5.0, cpu_s=1.0), []),
    ],
)
def test_advice(found, told):
    assert advice(found) == told


def test_the_weightiest_two_come_first():
    found = an_account({"TIMEOUT": 1}, cpu_s=3600.0, mem_mb=65536.0, rss_mb=1000.0, limit_s=3600.0)
    assert [word.split(" ")[0] for word in advice(found)] == ["1", "Tasks"]


def test_what_is_advised_is_never_below_what_was_used():
    for used in (0.2, 0.9, 1.5, 3.1, 7.9):
        for word in advice(an_account(cpu_s=used * 3600)):
            assert int(word.split("--cpus ")[1].split(" ")[0]) >= used


@pytest.mark.parametrize(
    ("megabytes", "text"), [(850, "850 MB"), (1228.8, "1.2 GB"), (8192, "8 GB"), (262144, "256 GB")]
)
def test_gigabytes(megabytes, text):
    assert gigabytes(megabytes) == text


def test_a_training_that_goes_on_from_its_state_loses_little(moment, monkeypatch):
    from made_runs import Made, Maker

    from slurm.view import account

    maker = Maker(Made(tasks=2, silent={0: 12.0}), moment)
    maker.plan()
    maker.launch()
    maker.work()
    moment.now += 300
    run = Run.open(maker.made.run_id())
    assert account.account(run).waste.lost_s > 0
    monkeypatch.setattr(account, "_goes_on", lambda _: True)
    assert account.account(run).waste.lost_s == 0
