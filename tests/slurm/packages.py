"""Whether a Slurm can be started here: find its programs, install them where that is allowed, else say why not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import List, Optional

from cluster import SYSTEM_FOLDERS

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel", "sinfo")
ACCOUNTING_PROGRAMS = ("mariadbd", "mariadb-install-db", "slurmdbd", "sacct")
INSTALLER = Path(__file__).resolve().parent.parent / "system-packages.sh"


def missing(programs: tuple) -> List[str]:
    """Those of the programs that are neither on PATH nor in the system's folders."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *SYSTEM_FOLDERS])
    return [name for name in programs if not shutil.which(name, path=path)]


def accounting_available() -> bool:
    """Whether MariaDB and slurmdbd are here (sacct answers with them alone)."""
    return not missing(ACCOUNTING_PROGRAMS)


def why_no_slurm() -> Optional[str]:
    """None when a Slurm can be started here, after installing it if need be; else the reason in a line."""
    if not sys.platform.startswith("linux"):
        return "Slurm's daemons run on Linux only"
    lacking = missing(PROGRAMS)
    if not lacking:
        return None
    if os.geteuid() != 0:
        return f"{', '.join(lacking)} not found, and only root can install them (bash tests/system-packages.sh)"
    if not shutil.which("apt-get"):
        return f"{', '.join(lacking)} not found, and no apt-get to install them with"
    said = _install()
    lacking = missing(PROGRAMS)
    return f"{', '.join(lacking)} not found after an attempt to install them: {said[-500:]}" if lacking else None


def _install() -> str:
    """Install the distribution's packages (about 30 s); returns what the installer said."""
    result = subprocess.run(["bash", str(INSTALLER)], capture_output=True, text=True, check=False)
    return result.stdout + result.stderr
