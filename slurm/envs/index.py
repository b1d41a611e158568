"""Where packages come from: what pip is configured with, in uv's words. uv reads none of pip's configuration."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

from slurm.envs.definition import folder
from slurm.envs.places import is_writable

_SYSTEM_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where Debian, Fedora, SUSE and Alpine keep the certificates of authorities."""


def pip() -> List[str]:
    """The command prefix of the pip that comes with the repository: it runs under any Python from 3.9, uninstalled."""
    return [str(next((folder() / "wheels").glob("pip-*.whl")) / "pip")]


def pip_configuration() -> Dict[str, str]:
    """What pip's files and PIP_* variables say, by option: variables win over `[install]`, that over `[global]`."""
    command = [sys.executable, *pip(), "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=package_environment())
    return merged(done.stdout) if done.returncode == 0 else {}


def merged(listing: str) -> Dict[str, str]:
    """Options out of the lines of `pip config list` (`global.find-links='/wheels'`)."""
    values: Dict[str, str] = {}
    for section in ("global", "install", ":env:"):
        for line in listing.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(f"{section}."):
                values[name[len(section) + 1 :]] = _unquoted(value)
    return values


def uv_options(configuration: Dict[str, str]) -> List[str]:
    """The command line of uv for a pip configuration: indexes, folders of wheels, hosts trusted blindly."""
    options: List[str] = []
    if "index-url" in configuration:
        options += ["--default-index", configuration["index-url"]]
    for option, name in (("--index", "extra-index-url"), ("--find-links", "find-links")):
        for value in configuration.get(name, "").split():
            options += [option, value]
    for value in configuration.get("trusted-host", "").split():
        options += ["--allow-insecure-host", value]
    if configuration.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        options.append("--no-index")
    # pip takes the best version of all indexes; uv would stop at the first index that knows the package
    return [*options, "--index-strategy", "unsafe-best-match"]


def uv_environment(configuration: Dict[str, str], root: Path) -> Dict[str, str]:
    """The process environment of uv: certificates, proxy, time-out; its cache in `root` where the home takes none."""
    environment = package_environment()
    for variable, name in (
        ("SSL_CERT_FILE", "cert"),
        ("HTTPS_PROXY", "proxy"),
        ("HTTP_PROXY", "proxy"),
        ("UV_HTTP_TIMEOUT", "timeout"),
        ("UV_HTTP_TIMEOUT", "default-timeout"),
    ):
        if name in configuration:
            environment.setdefault(variable, configuration[name])
    if any(Path(bundle).exists() for bundle in _SYSTEM_CERTIFICATES):
        # as pip does: an institution's proxy is known to the system's store, and not to the one inside uv
        environment.setdefault("UV_SYSTEM_CERTS", "true")
    home = environment.get("XDG_CACHE_HOME") or environment.get("HOME")
    if "UV_CACHE_DIR" not in environment and not (home and is_writable(Path(home))):
        environment["UV_CACHE_DIR"] = str(root / ".uv-cache")
    return environment


def package_environment() -> Dict[str, str]:
    """The environment of this process without what would lead pip or uv to another environment or Python."""
    dropped = (
        "PYTHONHOME",
        "PYTHONPATH",
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_USER",
        "PIP_REQUIRE_VIRTUALENV",
        "UV_PROJECT_ENVIRONMENT",
        "UV_SYSTEM_PYTHON",
        "UV_PYTHON",
    )
    return {key: value for key, value in os.environ.items() if key not in dropped}


def _unquoted(value: str) -> str:
    try:
        return str(ast.literal_eval(value))
    except (SyntaxError, ValueError):
        return value
