"""`python -m pipelines.vad DIR [STEM]`: voice activity detection in one process, or one task of an array."""

from __future__ import annotations

import sys

from pipelines.core.cli import main
from pipelines.vad import PIPELINE

sys.exit(main(PIPELINE))
