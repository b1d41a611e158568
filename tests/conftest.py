"""What all tests share: how examples are looked for."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "voxarray",
    deadline=None,
    derandomize=not os.environ.get("VOXARRAY_EXPLORE"),  # set it to look for new counterexamples
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
    database=None,
)
settings.load_profile("voxarray")
