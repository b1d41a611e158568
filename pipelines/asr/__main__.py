"""`python -m pipelines.asr MANIFEST`: transcripts in one process, or one task of an array."""

from __future__ import annotations

import sys

from pipelines.asr import PIPELINE
from pipelines.core.cli import main

sys.exit(main(PIPELINE))
