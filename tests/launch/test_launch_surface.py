"""The command line's surface is frozen: a flag that comes, goes or changes its name shows up here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from slurm import cli
from slurm.cli import COMMANDS

SURFACE = Path(__file__).with_name("surface.txt")
OWN = ("run", "merge", "retry", "logs", "cancel", "doctor", "demo", "units", "account", "pairs")
PIPELINES = ("vad", "encode", "sts", "kmeans", "asr", "lm", "score", "sample")


def flags_of(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    section = text.partition("positional arguments:\n")[2].split("\n\n")[0]
    operands = re.findall(r"^  (\S+)", section, re.MULTILINE)
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))), operands


def test_surface_is_frozen(place, capsys):
    lines = [f"commands: {' '.join(COMMANDS)}"]
    for command in ("tone", "chime", *PIPELINES, *OWN):
        flags, operands = flags_of(command, capsys)
        lines.append(f"{command}: {' '.join([*operands, *flags])}")
    assert "\n".join(lines) + "\n" == SURFACE.read_text(), (
        "change tests/launch/surface.txt on purpose, and the README with it"
    )


def modules_after(*words):
    program = "import sys; sys.argv[1:] = []; from slurm.cli import main\n"
    program += f"try: main({list(words)!r})\nexcept SystemExit: pass\nprint('LOADED', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.rsplit("LOADED", 1)[1].split())


@pytest.mark.parametrize(
    "words", [["--help"], ["vad", "--help"], ["tone", "--help"], ["merge", "--help"], ["doctor", "--help"]]
)
def test_help_imports_nothing_heavy(place, words):
    heavy = {"submitit", "cloudpickle", "numpy", "soundfile", "onnxruntime", "ten_vad", "torch"}
    assert not heavy & modules_after(*words)


def test_pipeline_help_does_not_import_the_engine(place):
    engine = {"filelock", "pipelines.core.run", "pipelines.core.merge", "slurm.launch", "slurm.submit"}
    assert not engine & modules_after("tone", "--help")


def test_first_help_needs_no_msgspec(place):
    assert "pipelines.core.run" not in modules_after("--help")


def test_help_lists_pipelines_and_commands(place, capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in ("vad DIR [STEM]", "tone", "chime", *COMMANDS):
        assert name in text


def test_version(place, capsys):
    assert cli.main(["--version"]) == 0
    assert re.fullmatch(r"voxarray \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_no_command_is_usage(place, capsys):
    assert cli.main([]) == 2


@pytest.mark.parametrize(
    ("wrong", "told"), [("vda", "Did you mean vad?"), ("stauts", "Did you mean status?"), ("xyzzy", "There are")]
)
def test_unknown_command_is_answered(place, capsys, wrong, told):
    assert cli.main([wrong]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("--task", "Did you mean --tasks?"),
        ("--partitoin", "Did you mean --partition?"),
        ("--zzz", "--zzz does not exist"),
    ],
)
def test_wrong_flag_is_answered_with_the_right_ones(place, capsys, wrong, told):
    with pytest.raises(SystemExit) as ended:
        cli.main(["tone", str(place.manifest(3)), wrong, "4"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert told in error
    assert "--max-parallel" in error
    assert error.count("\n") == 1


def test_operands_and_flags_in_any_order(place):
    from pipelines.core import registry
    from slurm import flags, resources

    parser = flags.pipeline_parser(registry.find("chime"), resources.describe(registry.folders()["chime"]))
    for words in (["d", "s", "--tasks", "4"], ["d", "--tasks", "4", "s"], ["--tasks", "4", "d", "s"]):
        options = parser.parse(words)
        assert (options.source, options.stem, options.tasks) == ("d", "s", "4")


@pytest.mark.parametrize("command", ["wer", "parity", "import-checkpoint"])
def test_help_makes_no_environment(place, command):
    status, out, error = place.run(command, "--help", VOXARRAY_ENVS=str(place.root / "none"))
    assert status == 0, error
    assert "usage: voxarray" in out
    assert not (place.root / "none").exists()
