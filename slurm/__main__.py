"""`python -m slurm …`: the command line."""

from __future__ import annotations

import sys

from slurm.cli import main

if __name__ == "__main__":
    sys.argv[0] = "voxarray"  # as it stands in a run's plan
    sys.exit(main(sys.argv[1:]))
