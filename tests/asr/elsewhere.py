"""Tests that run in a pipeline's own environment, as it is, while the suite runs in `test`.

A module says `pytestmark = pytest.mark.environment("asr")`. It is collected here as all are, so it imports at its top
nothing that only the other environment has; what of it was selected then runs there in one process, which sends back
pytest's own reports. The other environment has no pytest, and needs none: it imports this one's, and of this
environment nothing else.
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

PYTEST = (
    "pytest",
    "_pytest",
    "py",
    "pluggy",
    "iniconfig",
    "hypothesis",
    "_hypothesis_globals",
    "_hypothesis_pytestplugin",
    "sortedcontainers",
    "pygments",
)
"""What that process takes from the environment of the suite: pure Python, all of it."""
MARK = "environment"
VARIABLE = "VOXARRAY_TESTS_IN"
"""The environment that this process is in for the tests that ask for one."""
HERE = os.environ.get(VARIABLE)
"""Read once: tests may take the suite's variables away."""


class Borrowed:
    """Finds the modules of pytest, and no others, in the folder of another environment."""

    def __init__(self, folder):
        self.folder = folder

    def find_spec(self, name, path=None, target=None):  # noqa: ARG002
        if path is None and name in PYTEST:
            return importlib.machinery.PathFinder.find_spec(name, [self.folder])
        return None


# -- here


def register(config, pythons=None):
    """Let the suite send marked tests elsewhere; of several folders that ask for it, the first counts for all."""
    if not config.pluginmanager.has_plugin(MARK):
        config.addinivalue_line("markers", f"{MARK}(name): runs in that pipeline's environment")
        config.pluginmanager.register(Elsewhere(pythons or python), MARK)


def python(name):
    """The interpreter of an environment. Raises corpus.Missing."""
    from slurm.envs import places
    from slurm.envs.definition import find
    from tests import corpus

    prefix = places.prefix(find(name))
    if not places.is_current(prefix, find(name)):
        raise corpus.Missing(f"the environment {name} is not here: ./voxarray env create {name}")
    return places.python(prefix)


class Elsewhere:
    """The plugin of the suite: sends the marked tests to where they run, and takes their reports."""

    def __init__(self, pythons):
        """`pythons` gives the interpreter of an environment by name; it raises corpus.Missing."""
        self._pythons = pythons
        self._remote = {}

    def pytest_collection_modifyitems(self, items):
        from tests import corpus

        for name in {wanted(item) for item in items} - {None}:
            try:
                self._pythons(name)
            except corpus.Missing as missing:
                skip = __import__("pytest").mark.skip(reason=str(missing))
                for item in items:
                    if wanted(item) == name:
                        item.add_marker(skip)

    def pytest_runtest_protocol(self, item):
        name = wanted(item)
        if name is None or any(True for _ in item.iter_markers("skip")):
            return None
        if name not in self._remote:
            chosen = [each.nodeid for each in item.session.items if wanted(each) == name]
            self._remote[name] = Remote(name, self._pythons(name), item.config, chosen)
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._remote[name].reports(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_sessionfinish(self):
        for remote in self._remote.values():
            remote.end()


def wanted(item):
    """The environment that a test asks for, if it is another than this one."""
    mark = item.get_closest_marker(MARK)
    return None if mark is None or mark.args[0] == HERE else mark.args[0]


class Remote:
    """One process of pytest in the other environment."""

    def __init__(self, name, python, config, nodes):
        self._config = config
        self._log, self._told = tempfile.TemporaryFile("w+"), False  # noqa: SIM115 - ended by `end`
        site = str(Path(find_spec("pytest").origin).parent.parent)
        read, write = os.pipe()
        environment = {**os.environ, "PYTHONPATH": str(config.rootpath), "PYTHONNOUSERSITE": "1", VARIABLE: name}
        self._process = subprocess.Popen(
            [str(python), str(Path(__file__)), site, str(write), *nodes],
            cwd=config.rootpath, env=environment, pass_fds=[write], stdin=subprocess.DEVNULL,
            stdout=self._log, stderr=self._log,
        )  # fmt: skip
        os.close(write)
        self._lines = os.fdopen(read)

    def reports(self, item):
        """The reports of a test's setup, call and teardown; if the process dies, that is the test's failure."""
        from _pytest.reports import TestReport

        while True:
            line = self._lines.readline()
            if not line:
                yield TestReport(
                    item.nodeid, item.location, {}, "failed", self._last_words(), "call", duration=0.0, sections=[]
                )
                return
            report = self._config.hook.pytest_report_from_serializable(config=self._config, data=json.loads(line))
            yield report
            if report.when == "teardown":
                return

    def _last_words(self):
        status = self._process.wait()
        if self._told:
            return f"the process of the environment had ended with exit status {status}, see above"
        self._told = True
        self._log.seek(0)
        return f"the process of the environment ended with exit status {status}:\n{self._log.read()[-4000:]}"

    def end(self):
        self._lines.close()
        self._process.kill()
        self._process.wait()
        self._log.close()


# -- there


class Reporter:
    """The plugin of that process."""

    def __init__(self, descriptor):
        self._file = os.fdopen(descriptor, "w")

    def pytest_runtest_logreport(self, report):
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._file.write(json.dumps(data, default=str) + "\n")
        self._file.flush()

    def pytest_configure(self, config):
        self._config = config


def main(site, descriptor, *nodes):
    sys.meta_path.append(Borrowed(site))
    import pytest

    return pytest.main(["-p", "no:cacheprovider", "-q", *nodes], plugins=[Reporter(int(descriptor))])


if __name__ == "__main__":
    # as a module of the project, and not as the folder's own: `training` there is `tests.asr.training` here
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]
    sys.exit(main(*sys.argv[1:]))
