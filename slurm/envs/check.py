"""Is an environment fit to work: imports of its key modules, in its own Python, and the versions it has."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Dict, List

from slurm.envs import places
from slurm.envs.definition import Definition, requirement_name

_PROGRAM = """
import importlib, importlib.metadata, json, sys
packages, imports, calls = json.loads(sys.argv[1])
versions, failures = {}, []
for name in packages:
    try:
        versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
for name in imports:
    try:
        importlib.import_module(name)
    except Exception as error:
        failures.append("import %s: %s: %s" % (name, type(error).__name__, error))
for name in calls:
    module, _, attribute = name.partition(":")
    try:
        getattr(importlib.import_module(module), attribute)()
    except Exception as error:
        failures.append("%s(): %s: %s" % (attribute, type(error).__name__, error))
print(json.dumps([versions, failures]))
"""

REMEDIES = {
    "libc++": "the system library libc++ is missing: install libc++1 (Debian, Ubuntu), libcxx (Fedora), or let conda "
    "make the environment (it brings libcxx)",
    "libsndfile": "the system library libsndfile is missing: install libsndfile1 (Debian), libsndfile (Fedora)",
}
"""What mends a failure whose message names a system library."""


@dataclass(frozen=True)
class Report:
    """What `env check` found: versions of the direct requirements, and what failed, each with its remedy if known."""

    versions: Dict[str, str]
    failures: List[str]

    @property
    def is_fit(self) -> bool:
        """Whether everything that was tried worked."""
        return not self.failures


def check(definition: Definition) -> Report:
    """Try the environment as it stands; one that is missing, unfinished or out of date is a failure too."""
    prefix = places.prefix(definition)
    if not places.is_current(prefix, definition):
        state = "not made from the present lock" if places.read_stamp(prefix) else "not there"
        return Report({}, [f"it is {state}: run `./voxarray env create {definition.name}`"])
    packages = sorted({requirement_name(line) for line in (*definition.requirements, *definition.torch)})
    question = json.dumps([packages, definition.imports, definition.calls])
    done = subprocess.run(
        [str(places.python(prefix)), "-I", "-c", _PROGRAM, question], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        return Report({}, [f"its Python ended with exit status {done.returncode} and said: {last}"])
    versions, failures = json.loads(done.stdout.splitlines()[-1])
    return Report(versions, [_with_remedy(failure) for failure in failures])


def _with_remedy(failure: str) -> str:
    for mark, remedy in REMEDIES.items():
        if mark in failure:
            return f"{failure} ({remedy})"
    return failure
