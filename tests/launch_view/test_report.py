"""The report: one page that stands alone, says what is true, and takes whatever a run may hold."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any, Callable

import pytest
from made_runs import Made, Maker, make

from pipelines.core import parts
from pipelines.core.manifest import items as items_of
from pipelines.core.parts import Error, PartWriter
from pipelines.core.run import Run
from slurm import report, request
from slurm.view import page, report_data

VOID = {"meta", "br", "img", "link", "input", "hr"}


def always(value: Any) -> Callable[..., Any]:
    return lambda *_: value


class Reader(HTMLParser):
    """Checks that every element is closed in its turn; collects text, headings and tips."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.tips: list[str] = []
        self.text = ""
        self.tags: list[str] = []

    def handle_starttag(self, tag, _):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("h1", "h2", "h3"):
            self.headings.append("")

    def handle_startendtag(self, tag, _):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        inside = self.open[-1] if self.open else ""
        if inside in ("h1", "h2", "h3"):
            self.headings[-1] += data
        elif inside == "title" and "svg" in self.open:
            self.tips.append(data)
        if inside != "style":
            self.text += data


def read(maker: Maker) -> tuple[str, Reader]:
    """The page's source, checked for what holds for every page, and what a browser would make of it."""
    source = page.page(report_data.gather(Run.open(maker.made.run_id())))
    reader = Reader()
    reader.feed(source)
    reader.close()
    assert reader.open == []
    assert not re.search(r"https?://|@import|url\(|<script|<link|<img|<iframe|\bsrc=|\bhref=|\bon\w+=", source)
    assert "nan" not in re.findall(r'="([^"]*)"', source)
    assert not re.search(r'="-?(?:nan|inf)', source)
    assert len(source.encode()) < 300_000
    return source, reader


def test_the_numbers_are_those_of_the_run(moment):
    maker = make(Made(items=1000, tasks=8, bad=0.02, speed=20), moment)
    _, reader = read(maker)
    text = " ".join(reader.text.replace("\u00a0", " ").split())
    lost = len({row.key for path in maker.folder.rglob("task_*.jsonl") for row in parts.rows(path) if row.error})
    assert f"{1000 - lost:,} of 1,000 items are done" in text
    assert f"1,000 items = {1000 - lost:,} merged + {lost} quarantined + 0 missing" in text
    assert f"{1000 + lost:,} rows in" in text
    assert "Every item is accounted for" in reader.headings
    assert any("quarantined" in heading for heading in reader.headings)
    assert "0123456789ab" in text, "the commit"
    assert "voxarray vad /data/corpus --tasks 8" in text
    assert "threshold" in text
    assert "/home/me/metadata/corpus.csv" in text


def test_distributions_come_from_the_results(moment):
    _, reader = read(make(Made(items=400, tasks=2, speed=20, durations=lambda rng: rng.uniform(5, 15)), moment))
    headings = " ".join(reader.headings).replace("\u00a0", " ")
    found = re.search(r"Half of the recordings last less than ([\d.]+) s, the longest ([\d.]+) s", headings)
    assert 9.3 < float(found[1]) < 10.7
    assert 14.8 < float(found[2]) <= 15
    assert "of the time is speech" in headings
    assert "Speech comes in segments" in headings
    bars = [tip for tip in reader.tips if "recordings (" in tip and " s to " in tip]
    assert sum(int(re.search(r": ([\d,]+) recording", tip)[1].replace(",", "")) for tip in bars) >= 390


def test_every_plot_says_what_it_shows(moment):
    source, reader = read(make(Made(items=600, tasks=6, bad=0.01, speed=20), moment))
    charts = re.findall(r'<svg class="chart"[^>]*aria-label="([^"]+)"', source)
    assert len(charts) == 6
    assert all(len(says) > 10 for says in charts)
    assert source.count("<figcaption>") == 6
    assert "@media (prefers-color-scheme: dark)" in source
    assert "@media print" in source
    assert any("task 3 on node-00" in tip for tip in reader.tips)


@pytest.mark.parametrize(
    "made",
    [
        Made(items=1, tasks=1),
        Made(items=1, tasks=1, bad=1.0),
        Made(items=3, tasks=8),
        Made(items=40, tasks=2, bad=1.0, speed=20),
        Made(items=50, tasks=2, result=always({"text": "ja"})),
        Made(items=50, tasks=2, result=always({})),
        Made(items=50, tasks=2, result=lambda rng, _: {"score": -rng.random() - 0.1, "n": 7, "none": None}),
        Made(
            items=50,
            tasks=2,
            known=False,
            result=lambda *_: {"list": [1, 2], "dict": {"a": 1}, "yes": True},
        ),
        Made(items=50, tasks=2, durations=always(10.0)),
        Made(items=50, tasks=2, durations=always(0.0), result=always({"duration": 0.0})),
        Made(items=900, tasks=4, speed=20, until=60),
        Made(items=900, tasks=4, speed=20, until=60, silent={1: 20}, breaks={2: [(20, 5)]}),
    ],
)
def test_any_run_gives_a_page(moment, made):
    _, reader = read(make(made, moment))
    assert reader.headings[0] == made.run_id()


def test_a_run_of_which_nothing_is_done(moment):
    maker = Maker(Made(items=20, tasks=2), moment)
    maker.plan()
    read(maker)
    maker.launch()
    _, reader = read(maker)
    assert "20 of 20 items are still to be done" in [heading.replace("\u00a0", " ") for heading in reader.headings]


def test_what_went_wrong_is_told(moment):
    made = Made(items=3000, tasks=8, speed=20, slow={5: 0.2}, breaks={2: [(40, 30)]}, silent={6: 30}, until=160)
    _, reader = read(make(made, moment))
    headings = " ".join(reader.headings).replace("\u00a0", " ")
    assert "Task 6 fell silent on the way" in headings
    assert "Task 5 was slow" in headings
    assert any("cut short after" in tip for tip in reader.tips)
    assert "at work" in reader.text


def test_hostile_names_and_messages_stay_text(moment):
    maker = Maker(Made(items=20, tasks=1, name="a&b<i>"), moment)
    maker.plan()
    maker.launch()
    writer = PartWriter(maker.folder / "parts" / "launch-000", maker.made.run_id(), 0, 0)
    evil = '<script src="http://x/y.js">alert("1")</script>\n<img src=x onerror=alert(1)> & more\u2028'
    for item in items_of(maker.folder / "listing.jsonl"):
        writer.failed(item, Error("Evil<b>", evil, parts.signature("Evil<b>", evil)))
        writer.failed(item, Error("Evil<b>", evil, parts.signature("Evil<b>", evil)))
    writer.publish()
    source = page.page(report_data.gather(Run.open(maker.made.run_id())))
    reader = Reader()
    reader.feed(source)
    assert reader.open == []
    assert not {"script", "img"} & set(reader.tags)
    assert "Evil<b>: <script" in reader.text


def test_two_launches_with_a_day_between(moment):
    maker = Maker(Made(items=600, tasks=4, speed=20, silent={1: 30}), moment)
    maker.plan()
    maker.launch()
    maker.work()
    done = {row.index for path in maker.folder.rglob("task_*.jsonl") for row in parts.rows(path)}
    moment.now += 86_400
    maker.launch(1, set(range(600)) - done)
    maker.made.silent = {}
    maker.work(1)
    maker.merge()
    _, reader = read(maker)
    assert "24 h pause" in reader.text
    assert any(tip.startswith("launch 1, task 0") for tip in reader.tips)


def test_the_page_stays_small_for_thousands_of_tasks(moment):
    maker = make(Made(items=900, tasks=900, breaks={task: [(3, 2)] for task in range(0, 900, 7)}), moment)
    source, reader = read(maker)
    assert re.search(r"\d+ of 900 tasks are shown", reader.text)
    assert len(source) < 200_000


def test_a_damaged_part_is_named(moment):
    maker = make(Made(items=400, tasks=4), moment, merged=False)
    part = min((maker.folder / "parts").rglob("*.jsonl"))
    data = part.read_bytes()
    part.write_bytes(data[: len(data) // 2])
    _, reader = read(maker)
    assert "1 part cannot be read" in " ".join(reader.headings)
    assert str(part) in reader.text


def test_the_command_writes_where_it_is_told(moment, tmp_path, capsys):
    maker = make(Made(items=50, tasks=2), moment)
    assert report.main(["last"]) == 0
    assert (maker.folder / "report.html").read_text().startswith("<!doctype html>")
    assert report.main(["corpus", "--output", str(tmp_path / "x.html")]) == 0
    folder = tmp_path / "folder"
    folder.mkdir()
    assert report.main(["corpus", "--output", str(folder)]) == 0
    assert (folder / "corpus-00000001.html").exists()
    assert str(tmp_path / "x.html") in capsys.readouterr().out


def test_what_was_asked_for_is_costed(moment):
    maker = make(Made(items=200, tasks=4, speed=0.05), moment)
    run = Run.open(maker.made.run_id())
    jobs = request.begin(run, 0, "slurm", request.Request(cpus=4, gpus="a100:1"))
    request.write(run, 0, jobs)
    gathered = report_data.gather(run)
    wall = sum(attempt.wall_s for attempt in gathered.attempts) / 3600
    assert gathered.resources.gpu == pytest.approx(wall)
    assert gathered.resources.core == pytest.approx(4 * wall)
    _, reader = read(maker)
    assert "GPU time" in reader.text
    assert "an hour of audio" in reader.text
