"""MariaDB and slurmdbd for a test cluster, so that sacct answers: throw-away, so nothing is flushed to disk."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path
from typing import Mapping

from processes import ClusterError, Processes, wait_until
from slurm_conf import Ports, slurmdbd_conf

FIRST_STATEMENTS = """\
CREATE DATABASE IF NOT EXISTS slurm_accounting;
CREATE USER IF NOT EXISTS 'slurm'@'%' IDENTIFIED BY 'slurm';
CREATE USER IF NOT EXISTS 'slurm'@'localhost' IDENTIFIED BY 'slurm';
GRANT ALL ON slurm_accounting.* TO 'slurm'@'%';
GRANT ALL ON slurm_accounting.* TO 'slurm'@'localhost';
"""


def listens(port: int) -> bool:
    """Whether something accepts connections on the port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def start_accounting(root: Path, ports: Ports, user: str, processes: Processes, env: Mapping[str, str]) -> None:
    """Start the database and slurmdbd, and wait until slurmdbd answers (5-14 s, mostly the database's schema)."""
    data = root / "database"
    _create_database(root, data, user)
    (root / "first.sql").write_text(FIRST_STATEMENTS)
    server = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin:/usr/libexec") or "mariadbd"
    options = {
        "datadir": data,
        "socket": root / "database.sock",
        "pid-file": root / "database.pid",
        "port": ports.database,
        "bind-address": "127.0.0.1",
        "init-file": root / "first.sql",
        "innodb-buffer-pool-size": "64M",
        "innodb-log-file-size": "4M",
        "innodb-data-file-path": "ibdata1:4M:autoextend",
        "innodb-lock-wait-timeout": 900,
        "innodb-flush-log-at-trx-commit": 0,
        "innodb-flush-method": "nosync",
        "sync-binlog": 0,
        "performance-schema": "OFF",
        "user": user,
    }
    argv = [server, "--no-defaults", "--skip-name-resolve", "--skip-log-bin"]
    processes.start("mariadbd", argv + [f"--{name}={value}" for name, value in options.items()], env)
    wait_until(lambda: listens(ports.database), 90, "MariaDB to listen")
    configuration = root / "slurmdbd.conf"
    configuration.write_text(slurmdbd_conf(root, ports, user))
    configuration.chmod(0o600)  # slurmdbd refuses to read it otherwise
    processes.start("slurmdbd", ["slurmdbd", "-D"], env)
    wait_until(lambda: listens(ports.accounting), 180, "slurmdbd to listen")


def _create_database(root: Path, data: Path, user: str) -> None:
    result = subprocess.run(
        [
            "mariadb-install-db",
            "--no-defaults",
            f"--user={user}",
            f"--datadir={data}",
            "--auth-root-authentication-method=socket",
            "--skip-test-db",
            "--skip-name-resolve",
            "--innodb-flush-method=nosync",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
    )
    if result.returncode:
        raise ClusterError(f"mariadb-install-db failed: {result.stdout[-2000:]}{result.stderr[-2000:]}")
