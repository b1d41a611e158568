"""What is taken of a recording: no sample that is no number, and not all of it ahead where its length is not known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipelines.audio.items import Audio
from pipelines.audio.resample import to_int16
from pipelines.core import manifest
from pipelines.core.errors import ItemError


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_no_sample_is_clipped_that_is_no_number(bad, place):
    samples = np.zeros(2, np.float32)
    samples[place] = bad
    with pytest.raises(ItemError, match="not numbers"):
        to_int16(samples)
    assert to_int16(np.array([3.0, -3.0], np.float32)).tolist() == [32767, -32768]


class Pool:
    def __init__(self):
        self.asked = 0

    def submit(self, _):
        self.asked += 1


@pytest.mark.parametrize(
    ("fields", "asked"),
    [({"duration": 30.0}, 1), ({"duration": 7200.0}, 0), ({}, 0), ({"offset": 3.0}, 0)],
)
def test_what_may_be_long_is_not_read_ahead(fields, asked):
    row = json.dumps({"audio_filepath": "/nowhere.wav", **fields}).encode()
    pool = Pool()
    Audio(manifest.parse(0, row)).read_ahead(pool)
    assert pool.asked == asked
