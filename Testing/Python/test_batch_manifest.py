"""Manifests: what a row says, and every fault with its line before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
from mcsr.batch_manifest import read_manifest
from mcsr.errors import InputError
from mcsr.job import Settings

HEADER = "subject,target,reference"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for name in ("t2.nii", "t1.nii", "data/hr.nii"):
        (tmp_path / name).touch()
    return tmp_path


def faults_of(folder: Path, text: str | bytes, settings: Settings | None = None) -> str:
    manifest = folder / "cohort.csv"
    manifest.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError) as caught:
        read_manifest(manifest, settings or Settings(model="sinc"))
    return str(caught.value)


def test_a_row_says_files_and_settings(folder: Path) -> None:
    manifest = folder / "cohort.csv"
    header = f"{HEADER},truth,scale,consistency,model,weights"
    text = "\r\n".join([header, "p1,t2.nii,t1.nii,data/hr.nii,2,no,,", "", "p2,t2.nii,,,,,cubic,", ""])
    manifest.write_bytes(b"\xef\xbb\xbf" + text.encode())  # as a spreadsheet writes it
    first, second = read_manifest(manifest, Settings(model="sinc", scale=4))
    assert (first.name, first.target, first.reference) == ("p1", folder / "t2.nii", folder / "t1.nii")
    assert first.truth == folder / "data" / "hr.nii"
    assert first.settings == Settings(model="sinc", scale=2, consistency=False)
    assert second.inputs == {"target": folder / "t2.nii"}
    assert second.settings == Settings(model="cubic", scale=4)


def test_shipped_and_given_weights_are_looked_for(folder: Path, untrained_x2: Path) -> None:
    (folder / "own.safetensors").write_bytes(untrained_x2.read_bytes())
    manifest = folder / "cohort.csv"
    manifest.write_text(f"{HEADER},model,scale,weights\np1,t2.nii,,dcamsr-s,2,own.safetensors\n")
    assert read_manifest(manifest, Settings())[0].settings.weights == folder / "own.safetensors"
    found = faults_of(folder, f"{HEADER},model,scale,weights\np1,t2.nii,,dcamsr-s,4,own.safetensors\n")
    assert found.startswith("cohort.csv, line 2: own.safetensors is for dcamsr-s x2, not dcamsr-s x4")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("p1,nowhere.nii,", "line 2: the target nowhere.nii does not exist"),
        ("p1,t2.nii,gone.nii", "line 2: the reference gone.nii does not exist"),
        ("p1,,t1.nii", "line 2: the target is missing"),
        ("p1,t2.nii", "line 2: the header has 3 columns, this line 2"),
        ("p1,t2.nii,a,b", "line 2: the header has 3 columns, this line 4"),
        ("../p1,t2.nii,", "line 2: the subject '../p1' cannot name a folder"),
        ("a/b,t2.nii,", "'a/b' cannot name a folder"),
        ("a\\b,t2.nii,", "'a\\b' cannot name a folder"),
        (".hidden,t2.nii,", "'.hidden' cannot name a folder"),
        ("..,t2.nii,", "'..' cannot name a folder"),
        ("p1.,t2.nii,", "'p1.' cannot name a folder"),
        ("Jörg,t2.nii,", "'Jörg' cannot name a folder"),
        (",t2.nii,", "'' cannot name a folder"),
        (f"{100 * 'p'},t2.nii,", "cannot name a folder"),
        ("con,t2.nii,", "line 2: the subject's name 'con' is reserved"),
        ("LPT1.x,t2.nii,", "'LPT1.x' is reserved"),
        ("Batch.csv,t2.nii,", "'Batch.csv' is reserved"),
        ("overview-2.png,t2.nii,", "'overview-2.png' is reserved"),
        ("p1,t2.nii,\np1,t2.nii,", "line 3: the subject 'p1' stands in line 2 already"),
        ("p1,t2.nii,\n\nP1,t2.nii,", "line 4: the subject 'P1' stands in line 2 already"),
        ('p1,"t2.nii,', "this is no CSV"),
        ("", "there is no subject below the header"),
    ],
)
def test_faults_of_rows(row: str, fault: str, folder: Path) -> None:
    found = faults_of(folder, f"{HEADER}\n{row}\n")
    assert fault in found
    assert found.startswith("cohort.csv, line ")
    assert found.endswith(".")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("subject,target\np1,t2.nii\n", "cohort.csv, line 1: the column 'reference' is missing"),
        (f"{HEADER},modle\np1,t2.nii,,\n", "line 1: there is no column 'modle'; known are subject, target"),
        (f"{HEADER},target\np1,t2.nii,,\n", "line 1: the column 'target' stands there twice"),
        ("subject;target;reference\np1;t2.nii;\n", "line 1: the columns must be separated by commas"),
        (f"{HEADER}\nJörg,t2.nii,\n".encode("latin-1"), "cohort.csv is not written in UTF-8"),
        ("\n\n", "cohort.csv is empty; its first line must be: subject,target,reference"),
        (f"{HEADER},scale\np1,t2.nii,,two\n", "line 2: the scale 'two' is not a number"),
        (f"{HEADER},scale\np1,t2.nii,,7\n", "line 2: Scale 7 is not offered"),
        (f"{HEADER},trust\np1,t2.nii,,perhaps\n", "line 2: the trust 'perhaps' is not yes or no"),
        (f"{HEADER},plane\np1,t2.nii,,slanted\n", "line 2: the plane 'slanted' is not known; known are auto, sagittal"),
        (f"{HEADER},model\np1,t2.nii,,sincc\n", "line 2: Unknown model 'sincc'"),
        (f"{HEADER},model,maps\np1,t2.nii,,dcamsr-s,nonsense\n", "nonsense"),
    ],
)
def test_faults_of_columns_and_settings(text: str | bytes, fault: str, folder: Path) -> None:
    assert fault in faults_of(folder, text)


def test_all_faults_are_told_at_once_and_each_once(folder: Path) -> None:
    rows = [f"p{n},gone.nii,,7" for n in range(8)] + ["../x,t2.nii,t0.nii,"]
    told = faults_of(folder, "\n".join([f"{HEADER},scale", *rows])).split("\n  ")
    assert told[0] == "cohort.csv has 4 faults:"
    assert told[1] == "lines 2, 3, 4, 5, 6 and 3 more: the target gone.nii does not exist; check the path."
    assert [fault.partition(":")[0] for fault in told[2:]] == ["lines 2, 3, 4, 5, 6 and 3 more", "line 10", "line 10"]


def test_a_manifest_that_cannot_be_read(folder: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_manifest(folder / "none.csv", Settings())
    with pytest.raises(InputError, match="cannot be read"):
        read_manifest(folder / "data", Settings())
