"""A batch, run here and now: what each subject's folder holds, what is run again, and what is said of failures."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from batch_cohort import HereAndNow, write_cohort
from mcsr.batch import Batch, plan_batch, run_batch
from mcsr.batch_manifest import read_manifest
from mcsr.batch_subject import WORKING_FOLDER, run_subject
from mcsr.batch_table import Row
from mcsr.cli import app
from mcsr.errors import Cancelled, InputError
from mcsr.imageio import read_volume, write_volume
from mcsr.job import Settings
from mcsr.progress import Event, never_cancelled, no_progress
from typer.testing import CliRunner

SETTINGS = Settings(model="sinc", scale=2)
FILES = ["report.json", "residual.nii.gz", "result.h5", "sr.nii.gz"]


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where matplotlib is not installed: quicker; `test_batch_overview` has them."""
    for module in ("outputs", "batch_subject"):
        monkeypatch.setattr(f"mcsr.{module}.find_spec", lambda name: None)


def planned(manifest: Path, folder: Path, settings: Settings = SETTINGS, *, redo: bool = False) -> Batch:
    folder.mkdir(exist_ok=True)
    return plan_batch(read_manifest(manifest, settings), folder, redo=redo)


def run(batch: Batch) -> list[Row]:
    return run_batch(batch, HereAndNow(), 1, progress=no_progress, cancelled=never_cancelled)


def names(batch: Batch) -> list[str]:
    return [subject.name for subject in batch.waiting]


def test_a_subject_is_what_enhance_gives(tmp_path: Path) -> None:
    manifest, out, alone = write_cohort(tmp_path / "in", ["p1"]), tmp_path / "out", tmp_path / "alone"
    (row,) = run(planned(manifest, out))
    assert sorted(path.name for path in out.iterdir()) == ["batch.csv", "p1"]
    assert sorted(path.name for path in (out / "p1").iterdir()) == FILES
    target, reference, truth = (str(tmp_path / "in" / name) for name in ("p1_low.nii.gz", "t1.nii.gz", "t2.nii.gz"))
    options = ["--model", "sinc", "--scale", "2", "--ground-truth", truth, "-o", str(alone)]
    done = CliRunner().invoke(app, ["enhance", target, reference, *options])
    assert done.exit_code == 0, done.output
    for name in ("sr.nii.gz", "residual.nii.gz"):
        ours, theirs = read_volume(out / "p1" / name), read_volume(alone / name)
        np.testing.assert_array_equal(ours.array_kji, theirs.array_kji)
        np.testing.assert_array_equal(ours.ijk_to_ras, theirs.ijk_to_ras)
    ours, theirs = (json.loads((folder / "report.json").read_text()) for folder in (out / "p1", alone))
    assert {key: ours[key] for key in ("settings", "scores", "summary", "plan")} == {
        key: theirs[key] for key in ("settings", "scores", "summary", "plan")
    }
    assert str(tmp_path) not in json.dumps(ours), "a path of the user's machine"
    assert row.psnr_db == theirs["scores"]["result"]["psnr"]
    assert row.psnr_gain_db == pytest.approx(0, abs=0.05)


def test_the_table_has_each_subject_once_with_its_figures(tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path / "in", ["p1", "p2"])
    (tmp_path / "in" / "p2_low.nii.gz").write_bytes(b"no image")
    run(planned(manifest, tmp_path / "out"))
    with (tmp_path / "out" / "batch.csv").open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["subject"], first["status"], first["model"], first["scale"]) == ("p1", "done", "sinc", "2")
    assert float(first["psnr_db"]) > 20
    assert float(first["seconds"]) >= 0
    assert first["registration"] == "Registration was skipped."
    assert first["reference"] == "Reference not used: this method uses none."
    assert (second["subject"], second["status"], second["psnr_db"]) == ("p2", "failed", "")
    assert "p2_low.nii.gz is damaged" in second["error"]
    assert not (tmp_path / "out" / "p2").exists()


def test_only_what_is_missing_or_stale_is_run_again(tmp_path: Path) -> None:
    manifest, out = write_cohort(tmp_path / "in", ["p1", "p2", "p3", "p4"]), tmp_path / "out"
    (tmp_path / "in" / "p4_low.nii.gz").write_bytes(b"no image")
    run(planned(manifest, out))
    before = {path: path.stat().st_mtime_ns for path in out.glob("p[12]/*")}
    touched, other = tmp_path / "in" / "p2_low.nii.gz", tmp_path / "in" / "p3_low.nii.gz"
    os.utime(touched, ns=(1, 1))
    low = read_volume(touched)
    write_volume(low.with_array(1.5 * low.array_kji), other)
    write_volume(low, tmp_path / "in" / "p4_low.nii.gz")
    again = planned(manifest, out)
    assert names(again) == ["p3", "p4"]
    assert again.changed == ["p3"]
    assert [row.status for row in run(again)] == ["done"] * 4
    assert {path: path.stat().st_mtime_ns for path in out.glob("p[12]/*")} == before
    old, new = (read_volume(out / name / "sr.nii.gz").array_kji for name in ("p2", "p3"))
    np.testing.assert_allclose(new, 1.5 * old, atol=2)
    assert names(planned(manifest, out)) == []


def test_other_settings_are_not_mixed_in_unasked(tmp_path: Path) -> None:
    manifest, out = write_cohort(tmp_path / "in", ["p1", "p2"]), tmp_path / "out"
    run(planned(manifest, out))
    cubic = Settings(model="cubic", scale=2)
    with pytest.raises(InputError, match=r"p1 \(model sinc, now cubic\) and 1 more in .* other settings; .* --redo"):
        planned(manifest, out, cubic)
    assert names(planned(manifest, out, Settings(model="sinc", scale=2, device="cpu"))) == [], "the same result"
    again = planned(manifest, out, cubic, redo=True)
    assert names(again) == ["p1", "p2"]
    assert [(row.status, row.model) for row in run(again)] == [("done", "cubic")] * 2
    assert json.loads((out / "p1" / "report.json").read_text())["settings"]["model"] == "cubic"
    assert sorted(path.name for path in (out / "p1").iterdir()) == FILES


def test_what_no_batch_wrote_stays(tmp_path: Path) -> None:
    manifest, out = write_cohort(tmp_path / "in", ["p1", "p2"]), tmp_path / "out"
    run(planned(manifest, out))
    (out / "p2" / "notes.txt").write_text("read by two radiologists")
    assert names(planned(manifest, out)) == []
    with pytest.raises(InputError, match=r"p2 \(it also holds notes.txt\) in .* cannot be replaced"):
        planned(manifest, out, Settings(model="cubic", scale=2), redo=True)
    (out / "p2" / "report.json").unlink()
    with pytest.raises(InputError, match=r"p2 \(it holds no result of a batch\) in .* cannot be replaced"):
        planned(manifest, out)
    assert (out / "p2" / "notes.txt").is_file()


def test_a_subject_that_fails_inside_is_told_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_cohort(tmp_path / "in", ["p1", "p2", "p3"])

    def broken(target: object, *_: object, **__: object) -> None:
        raise ValueError("seven") if "p2" in str(target) else RuntimeError("CUDA out of memory")

    monkeypatch.setattr("mcsr.batch_subject.enhance", broken)
    rows = run(planned(manifest, tmp_path / "out"))
    assert rows[0].error.startswith("Memory ran out; run fewer --processes")
    assert rows[1].error.startswith("Something went wrong inside (ValueError at test_batch.py:")
    assert "seven" in rows[1].error
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["batch.csv"]


def test_stopping_leaves_what_is_done_and_nothing_half(tmp_path: Path) -> None:
    manifest, out = write_cohort(tmp_path / "in", ["p1", "p2", "p3"]), tmp_path / "out"
    batch, seen = planned(manifest, out), list[Event]()
    with pytest.raises(Cancelled, match=r"2 of 3 subjects are left\. Give the same command again"):
        run_batch(batch, HereAndNow(), 1, progress=seen.append, cancelled=lambda: len(seen) > 1)
    assert [event.stage for event in seen] == ["0 of 3 subjects", "1 of 3 subjects"]
    assert seen[0].remaining_s is None
    assert seen[1].remaining_s is not None
    assert sorted(path.name for path in out.iterdir()) == ["batch.csv", "p1"]
    text = (out / "batch.csv").read_text()
    assert text.count("not run") == 2
    assert names(planned(manifest, out)) == ["p2", "p3"]


def test_leftovers_of_a_killed_batch_are_removed(tmp_path: Path) -> None:
    manifest, out = write_cohort(tmp_path / "in", ["p1"]), tmp_path / "out"
    left = out / WORKING_FOLDER / "p1.0123abcd"
    left.mkdir(parents=True)
    (left / "sr.nii.gz").write_bytes(b"half")
    run(planned(manifest, out))
    assert sorted(path.name for path in out.iterdir()) == ["batch.csv", "p1"]


def test_without_the_working_folder_a_worker_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (subject,) = read_manifest(write_cohort(tmp_path / "in", ["p1"]), SETTINGS)
    out = tmp_path / "out"
    assert "all workers must see it under the same path" in run_subject(subject, out, 1)
    (out / WORKING_FOLDER).mkdir(parents=True)

    def read_and_stop(path: Path) -> object:
        for attempt in (out / WORKING_FOLDER).iterdir():
            attempt.rename(tmp_path / "gone")
        return read_volume(path)

    monkeypatch.setattr("mcsr.batch_subject.read_volume", read_and_stop)
    assert run_subject(subject, out, 1) == "Cancelled; nothing was written."
    assert not list((out / WORKING_FOLDER).iterdir())
    assert not (out / "p1").exists()


def test_of_two_workers_with_a_subject_the_first_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (subject,) = read_manifest(write_cohort(tmp_path / "in", ["p1"]), SETTINGS)
    out, first = tmp_path / "out", tmp_path / "first"
    for folder in (out, first):
        (folder / WORKING_FOLDER).mkdir(parents=True)
    assert run_subject(subject, first, 1) == ""

    def slow(path: Path) -> object:
        if not (out / "p1").exists():
            (first / "p1").rename(out / "p1")  # while this one is still reading, the other one finishes
        return read_volume(path)

    stamp = (first / "p1" / "sr.nii.gz").stat().st_mtime_ns
    monkeypatch.setattr("mcsr.batch_subject.read_volume", slow)
    assert run_subject(subject, out, 1) == ""
    assert (out / "p1" / "sr.nii.gz").stat().st_mtime_ns == stamp
    assert not list((out / WORKING_FOLDER).iterdir())
