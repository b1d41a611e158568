"""`python -m pipelines.sts MANIFEST DATASET`: resynthesis in one process, or one task of an array."""

from __future__ import annotations

import sys

from pipelines.core.cli import main
from pipelines.sts import PIPELINE

sys.exit(main(PIPELINE))
