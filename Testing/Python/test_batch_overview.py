"""The overview of a batch: one page and sheets of pictures, each subject once, the worst first."""

from __future__ import annotations

import re
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from batch_cohort import HereAndNow, write_cohort
from matplotlib.image import imread
from mcsr.batch import plan_batch, run_batch, write_overviews
from mcsr.batch_manifest import read_manifest
from mcsr.batch_overview import count_words, write_overview
from mcsr.batch_sheet import write_sheets
from mcsr.batch_strip import PICTURES, SIDE
from mcsr.batch_table import Row, worst_first
from mcsr.job import Settings
from mcsr.progress import never_cancelled, no_progress

DONE = Row("fine", "done", model="sinc", scale=2, checks="Checks.", doubts="None.", reference="Used.")


class Page(HTMLParser):
    """Headings, addresses and the nesting of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.subjects: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.subjects.append(text)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    """A batch of which one subject has failed."""
    folder = tmp_path_factory.mktemp("batch")
    manifest = write_cohort(folder / "in", ["p1", "p2", "p3"])
    (folder / "in" / "p2_low.nii.gz").write_bytes(b"no image")
    (folder / "out").mkdir()
    batch = plan_batch(read_manifest(manifest, Settings(model="sinc", scale=2)), folder / "out")
    return folder / "out", run_batch(batch, HereAndNow(), 1, progress=no_progress, cancelled=never_cancelled)


def test_the_page_holds_each_subject_once_and_needs_nothing_else(ran: tuple[Path, list[Row]], tmp_path: Path) -> None:
    folder, rows = ran
    files = write_overviews(folder, rows, "Batch <cohort>")
    assert [file.name for file in files] == ["batch.csv", "overview.html", "overview.png"]
    text = (folder / "overview.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert page.subjects == ["p2", "p1", "p3"], "what failed stands first"
    assert "<h1>Batch &lt;cohort&gt;</h1>" in text
    assert "3 subjects: 2 done, 1 failed." in text
    assert "p2_low.nii.gz is damaged" in text
    assert text.count("Research use only.") == 1
    assert not re.search(r"https?:|//|url\(|<script|@import", re.sub(r"base64,[^\"]*", "", text))
    pictures = [address for address in page.addresses if address.startswith("data:image/jpeg;base64,")]
    assert sorted(set(page.addresses) - set(pictures)) == ["p1/report.png", "p3/report.png"]
    assert all((folder / address).is_file() for address in set(page.addresses) - set(pictures))
    assert len(pictures) == 2
    (tmp_path / "strip.jpg").write_bytes(b64decode(pictures[0].partition(",")[2]))
    assert imread(tmp_path / "strip.jpg").shape == (SIDE, len(PICTURES) * SIDE, 3)
    assert len(text) < 120_000


def test_a_strip_shows_input_result_change_and_reference(ran: tuple[Path, list[Row]]) -> None:
    strip = imread(ran[0] / "p1" / "overview.jpg").astype(float)
    given, result, change, reference = np.split(strip, len(PICTURES), axis=1)
    inner = np.s_[20:-20, 20:-20]  # without the letters at the sides
    assert np.abs(given - result)[inner].mean() < 3, "sinc is the interpolation"
    assert change.max() < 60, "so nothing was changed, which is black"
    assert result.max() > 200
    assert np.abs(reference - result)[inner].mean() > 10, "another contrast"


def test_what_is_shown_first() -> None:
    flagged, failed = Row("look", "done", flags=["1 warning"]), Row("bad", "failed", "Why.")
    waiting = Row("later", "not run")
    rows = [DONE, waiting, flagged, failed]
    assert [row.subject for row in worst_first(rows)] == ["bad", "look", "fine", "later"]
    assert count_words(rows) == "4 subjects: 2 done (1 to look at closely), 1 failed, 1 not run."
    assert count_words([DONE]) == "1 subject: 1 done."


def test_words_are_escaped_and_absent_pictures_are_said(tmp_path: Path) -> None:
    rows = [Row("p1", "failed", "<b>bad</b> & worse"), Row(**{**vars(DONE), "doubts": "a < b", "flags": ["<x>"]})]
    text = write_overview(tmp_path, rows, "Batch").read_text(encoding="utf-8")
    assert Page(text).open == []
    assert "&lt;b&gt;bad&lt;/b&gt; &amp; worse" in text
    assert "a &lt; b" in text
    assert "&lt;x&gt;" in text
    assert "No pictures" in text


def test_many_subjects_take_more_sheets_and_few_remove_them(tmp_path: Path) -> None:
    rows = [Row(f"p{number:03d}", "failed", "Why.") for number in range(60)]
    assert [file.name for file in write_sheets(tmp_path, rows, "Batch")] == [
        "overview.png",
        "overview-2.png",
        "overview-3.png",
    ]
    write_sheets(tmp_path, rows[:3], "Batch")
    assert [path.name for path in tmp_path.iterdir()] == ["overview.png"]
