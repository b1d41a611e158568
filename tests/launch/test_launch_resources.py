"""What a task asks for: sizes and times as Slurm writes them, and who wins when several say something."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core.errors import UsageError
from slurm import profile, resources, submit
from slurm.request import Request
from slurm.resources import Description


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("30", 30),
        (30, 30),
        ("30:00", 30),
        ("30:01", 31),
        ("4:00:00", 240),
        ("1-0", 1440),
        ("2-12", 3600),
        ("2-12:30", 3630),
        ("2-12:30:00", 3630),
        ("0:00:59", 1),
    ],
)
def test_times_as_slurm_writes_them(text, minutes):
    assert resources.minutes(text) == minutes


@given(st.integers(1, 60 * 24 * 30))
def test_time_survives_writing(minutes):
    assert resources.minutes(resources.clock(minutes)) == minutes


@pytest.mark.parametrize("text", ["", "abc", "1:2:3:4", "-", "0", "0:00", "1.5", "4h", "-5"])
def test_wrong_times_are_refused(text):
    with pytest.raises(UsageError, match="time"):
        resources.minutes(text)


@pytest.mark.parametrize(
    ("text", "megabytes"), [("8G", 8192), ("8GB", 8192), ("500M", 500), ("500", 500), ("0.5T", 524288), ("1k", 1)]
)
def test_memory_as_slurm_writes_it(text, megabytes):
    assert resources.megabytes(text) == megabytes


@pytest.mark.parametrize("text", ["", "G", "eight", "0", "-1G", "8 apples"])
def test_wrong_memory_is_refused(text):
    with pytest.raises(UsageError, match="memory"):
        resources.megabytes(text)


@pytest.mark.parametrize(("text", "count"), [("0", 0), ("2", 2), (1, 1), ("a100:2", 2), ("rtx_3090:1", 1)])
def test_gpus(text, count):
    assert resources.gpu_count(text) == count


@pytest.mark.parametrize("text", ["two", "a100", ":1", "-1"])
def test_wrong_gpus_are_refused(text):
    with pytest.raises(UsageError, match="GPUs"):
        resources.gpu_count(text)


def described(**own):
    return Description("tone", Path("tone"), "", "", "vad", own)


def test_command_line_wins_over_profile_over_variables_over_pipeline(monkeypatch):
    monkeypatch.setenv("SBATCH_PARTITION", "variable")
    monkeypatch.setenv("SBATCH_ACCOUNT", "variable")
    monkeypatch.setenv("SBATCH_QOS", "variable")
    settings = resources.resolve(
        described(cpus=4, partition="toml", qos="toml"),
        {"partition": "profile", "account": "profile"},
        "profile p",
        {"partition": "flag"},
    )
    found = {key: (setting.value, setting.origin) for key, setting in settings.items()}
    assert found["partition"] == ("flag", "command line")
    assert found["account"] == ("profile", "profile p")
    assert found["qos"] == ("variable", "SBATCH_ variable")
    assert found["cpus"] == (4, "tone/pipeline.toml")
    assert found["time"] == ("4:00:00", "built in")


def test_unknown_keys_are_named():
    with pytest.raises(UsageError, match=r"memory, which is not known. Known are cpus, gpus, mem"):
        resources.checked({"memory": 1}, "x.toml")


def test_broken_toml_names_the_line(tmp_path):
    (tmp_path / "x.toml").write_text("a = \nb = 2\n")
    with pytest.raises(UsageError, match=r"x.toml is not TOML .*line 1"):
        resources.read_toml(tmp_path / "x.toml")


# -- profiles


def write(place, name, text):
    folder = place.root / "config" / "voxarray" / "profiles"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.toml").write_text(text)


def test_profile_with_a_pipelines_own_part(place):
    write(
        place,
        "big",
        'partition = "p"\ncpus = 2\n[pipelines.tone]\ncpus = 8\n[sbatch]\nnice = 5\n[sweep]\ntime = "30"\n',
    )
    assert dict(profile.load("big", "tone").settings) == {"partition": "p", "cpus": 8}
    assert dict(profile.load("big", "vad").settings) == {"partition": "p", "cpus": 2}
    assert profile.load("big", "vad").sbatch == {"nice": 5}
    assert profile.load("big", "vad").sweep == {"time": 30}


def test_default_profile_needs_no_name(place):
    assert profile.load(None, "tone").settings == {}
    write(place, "default", 'account = "me"\n')
    assert profile.load(None, "tone") == profile.Profile("default", {"account": "me"}, {}, {})


def test_unknown_profile_lists_those_there_are(place):
    write(place, "mine", "")
    with pytest.raises(UsageError, match=r"no profile named 'your'.*example, mine"):
        profile.load("your", "tone")


def test_profile_with_a_wrong_key_is_named(place):
    write(place, "odd", "[sweep]\nfoo = 1\n")
    with pytest.raises(UsageError, match=r"odd.toml, \[sweep\] sets foo"):
        profile.load("odd", "tone")


def test_the_example_can_be_loaded(place):
    assert profile.load("example", "vad").settings["cpus"] == 4


# -- how a launch is cut


@given(st.integers(1, 5000), st.integers(1, 1001))
def test_arrays_cover_every_task_once(tasks, most):
    arrays = submit.chunks(tasks, most)
    assert [task for first, number in arrays for task in range(first, first + number)] == list(range(tasks))
    assert all(0 < number <= most for _, number in arrays)


@given(st.integers(1, 5000), st.integers(1, 1001), st.integers(1, 400))
def test_arrays_share_the_tasks_at_a_time(tasks, most, wanted):
    arrays = submit.chunks(tasks, most)
    shares = submit.parallel(wanted, arrays)
    assert all(share >= 1 for share in shares)
    assert sum(shares) <= max(wanted, len(arrays))


@pytest.mark.parametrize(("minutes", "seconds"), [(1, 12), (5, 60), (10, 120), (600, 120)])
def test_warning_leaves_a_short_job_its_time(minutes, seconds):
    assert submit.warning_s(minutes) == seconds


def test_request_refuses_nonsense():
    settings = resources.resolve(described(), {}, "profile None", {"cpus": "0"})
    with pytest.raises(UsageError, match="--cpus must be a whole number of 1 or more"):
        Request.of(settings)
