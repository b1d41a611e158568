"""The shape of the code: who may import whom, what every Python must be able to read, how long a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
import sysconfig
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.core.world import REPOSITORY

OLD_PYTHON = (3, 9)
CORE_MAY = {"msgspec", "filelock"}
LIBRARIES = {
    "audio": {"core"},
    "voice": {"core", "audio"},
    "units": {"core", "audio"},
    "language": {"core"},
}
"""What lies beside `core` for pipelines to share, and what of the project each may import."""
SOURCES = ("pipelines", "slurm", "tests")


def files(*below: str) -> list[Path]:
    found = []
    for place in below:
        path = REPOSITORY / place
        found += [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(REPOSITORY).parts)]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> set[str]:
    """The full names of all modules that a file imports, anywhere in it."""
    found = set()
    package = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts[:-1])
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parent = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(filter(None, [parent, node.module]))
            found |= {f"{base}.{alias.name}" for alias in node.names} | {base}
    return found


def project(names: set[str]) -> set[str]:
    """Those of the names that lie in the project, as `pipelines.core` or `slurm`."""
    ours = {name for name in names if name.split(".")[0] in ("pipelines", "slurm", "tests")}
    return {".".join(name.split(".")[:2]) if name.startswith("pipelines.") else name.split(".")[0] for name in ours}


def is_standard(name: str) -> bool:
    top = name.split(".", maxsplit=1)[0]
    if hasattr(sys, "stdlib_module_names"):
        return top in sys.stdlib_module_names
    spec = find_spec(top)
    where = spec.origin if spec else None
    standard = sysconfig.get_paths()["stdlib"]
    return where in ("built-in", "frozen") or bool(
        where and where.startswith(standard) and "site-packages" not in where
    )


def pipelines() -> list[str]:
    return sorted(path.parent.name for path in (REPOSITORY / "pipelines").glob("*/pipeline.toml"))


@pytest.mark.parametrize("path", files("pipelines/core"), ids=lambda path: path.stem)
def test_core_imports_the_standard_library_msgspec_and_filelock(path):
    foreign = {name for name in imported(path) if not name.startswith("pipelines") and not is_standard(name)}
    assert {name.split(".")[0] for name in foreign} <= CORE_MAY
    assert project(imported(path)) <= {"pipelines", "pipelines.core"}


def allowed(*names: str) -> set[str]:
    return {"pipelines"} | {f"pipelines.{name}" for name in names}


def test_a_folder_is_core_or_a_library_or_a_pipeline():
    folders = {path.parent.name for path in (REPOSITORY / "pipelines").glob("*/__init__.py")}
    assert folders >= {"core", *LIBRARIES}
    assert not {"core", *LIBRARIES} & set(pipelines())
    assert folders - {"core", *LIBRARIES} == set(pipelines())


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_imports_what_lies_below_it(name):
    for path in files(f"pipelines/{name}"):
        assert project(imported(path)) <= allowed(name, *LIBRARIES[name]), path


@pytest.mark.parametrize("name", pipelines())
def test_a_pipeline_imports_libraries_and_itself(name):
    for path in files(f"pipelines/{name}"):
        assert project(imported(path)) <= allowed("core", *LIBRARIES, name), path


def test_what_lies_beside_the_pipelines_imports_core():
    for path in (REPOSITORY / "pipelines").glob("*.py"):
        assert project(imported(path)) <= {"pipelines", "pipelines.core"}, path


def test_slurm_imports_core_and_no_pipeline():
    for path in files("slurm"):
        assert project(imported(path)) <= {"pipelines", "pipelines.core", "slurm"}, path


def test_nobody_imports_slurm():
    for path in files("pipelines"):
        assert "slurm" not in project(imported(path)), path


def test_importing_core_loads_nothing_heavy():
    """What a pipeline's `--help` costs; argparse and logging are the heaviest there is."""
    code = (
        "import sys, pkgutil, importlib, pipelines.core as core\n"
        "for one in pkgutil.iter_modules(core.__path__): importlib.import_module(f'pipelines.core.{one.name}')\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert not {"numpy", "torch", "soundfile", "submitit", "slurm"} & set(done.stdout.split())


@pytest.mark.parametrize("place", ["pipelines", "slurm/job.py"])
def test_the_oldest_python_reads_what_runs_in_an_environment(place):
    for path in files(place):
        if path.exists():
            source = path.read_text(encoding="utf-8")
            ast.parse(source, str(path), feature_version=OLD_PYTHON)
            if any(
                isinstance(node, ast.AnnAssign) or getattr(node, "returns", None) for node in ast.walk(parsed(path))
            ):
                assert "from __future__ import annotations" in source, path


@pytest.mark.parametrize("place", SOURCES)
def test_files_stay_short(place):
    limit = 400 if place == "tests" else 300
    long = {
        str(path.relative_to(REPOSITORY)): lines
        for path in files(place)
        if (lines := path.read_text(encoding="utf-8").count("\n")) > limit
    }
    assert long == {}


def printing(tree: ast.AST) -> set[int]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"}


def test_libraries_do_not_print():
    """A command's `main` may: what it has to say goes to the terminal."""
    for path in files("pipelines"):
        if path.name == "__main__.py":
            continue
        tree = parsed(path)
        mains = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
        assert printing(tree) <= {line for main in mains for line in printing(main)}, path


def test_test_files_have_names_of_their_own():
    """pytest imports them by their bare names."""
    names = [path.name for path in files("tests") if path.name.startswith("test_")]
    assert sorted(set(names)) == sorted(names)
