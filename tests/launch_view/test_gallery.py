"""Items in a chain's report: drawn to scale, and whatever comes from outside is escaped."""

from __future__ import annotations

import re

from slurm.view import gallery
from slurm.view.gallery import Exhibit, Piece

EVIL = '<script>alert("x")</script>'


def piece(**more):
    known = {
        "name": "a.wav",
        "duration": 4.0,
        "shown_s": 4.0,
        "peaks": [(-0.5, 0.5)] * 8,
        "audio": "data:audio/flac,x",
    }
    return Piece(**{**known, **more})


def test_texts_from_outside_are_escaped():
    page = gallery.gallery(Exhibit([piece(name=EVIL, text=EVIL)], [piece(name=EVIL)], [EVIL]))
    assert EVIL not in page
    assert page.count("&lt;script&gt;") >= 4


def test_segments_and_units_lie_where_they_are():
    page = gallery.gallery(
        Exhibit([piece(segments=[(1.0, 3.0), (3.5, 9.0)], units=[7] * 100 + [8] * 100, rate=50.0, vocabulary_size=9)])
    )
    speech = re.findall(r'<rect x="([\d.]+)%" y="0" width="([\d.]+)%" height="92" class="speech"', page)
    assert speech == [("25", "50"), ("87.5", "12.5")], "cut where the picture ends"
    assert re.findall(r'x="([\d.]+)%" y="98" width="([\d.]+)%"', page) == [("0.00", "50.00"), ("50.00", "50.00")]
    assert "unit 7" in page


def test_original_and_resynthesis_can_be_played():
    page = gallery.gallery(Exhibit([piece(resynthesis="data:audio/flac,y")]))
    assert re.findall(r"<label>(\w*)<audio[^>]*src=\"([^\"]*)\"", page) == [
        ("original", "data:audio/flac,x"),
        ("resynthesis", "data:audio/flac,y"),
    ]


def test_nothing_to_show_is_no_section():
    assert gallery.gallery(Exhibit()) == ""


def test_without_its_environment_the_report_says_how_to_get_items(monkeypatch):
    monkeypatch.setattr(gallery.environments, "is_ready", lambda _: False)
    found = gallery.gather({"manifest": "m.json"})
    assert "env create units" in found.faults[0]
