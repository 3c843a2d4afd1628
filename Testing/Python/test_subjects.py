"""Subjects of a folder: which pairs and splits there are, and what is said when something is wrong."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from mcsr.cli import app
from mcsr.errors import InputError
from mcsr.subjects import find_subject_pairs
from mcsr.subjects_session import Splits, split_in_name
from subject_files import write_brats, write_ixi, write_subject
from typer.testing import CliRunner


def test_pairs_have_native_targets_and_the_slices_with_brain_in_both(tmp_path: Path) -> None:
    write_subject(tmp_path, "a", "train", "one")
    write_subject(tmp_path, "b", "train", "two", all_native=True)
    pairs = {pair.key: pair for pair in find_subject_pairs(tmp_path, "train")}
    assert sorted(pairs) == ["a T2<-T1", "b T1<-T2", "b T2<-T1"]
    pair = pairs["a T2<-T1"]
    assert (pair.slices, pair.subject, pair.path.name, pair.plane) == (range(1, 5), "one", "a.h5", "axial")
    assert pair.spacing_mm == pytest.approx(0.8)
    assert pair.session.origin == ("Nobody, Journal of Blobs 2026.", "CC-BY")
    assert (pair.auxiliary, pairs["b T2<-T1"].auxiliary) == (False, True)


def test_resampled_contrasts_are_targets_only_on_request_and_contrasts_can_be_chosen(tmp_path: Path) -> None:
    write_subject(tmp_path, "a", "train", "one")
    pairs = find_subject_pairs(tmp_path, "train", resampled_targets=True)
    assert [(pair.key, pair.native) for pair in pairs] == [("a T2<-T1", True), ("a T1<-T2", False)]
    assert [pair.key for pair in find_subject_pairs(tmp_path, "train", contrasts=["T2<-T1"])] == ["a T2<-T1"]
    with pytest.raises(InputError, match="no HDF5 subject file of split 'train' with T2<-PD"):
        find_subject_pairs(tmp_path, "train", contrasts=["T2<-PD"])


def test_a_volume_lies_where_its_slices_lie(tmp_path: Path) -> None:
    path = write_subject(tmp_path, "a", "train", "one")
    (pair,) = find_subject_pairs(tmp_path, "train")
    volume = pair.read("T2")
    with h5py.File(path) as file:
        assert np.array_equal(volume.array_kji, file["T2"][1:5])
        affine = file.attrs["affine"]
    assert volume.source_dtype == "uint16"
    assert volume.grid.shape_ijk == (50, 58, 4)
    assert np.allclose(volume.grid.to_ras((0, 0, 0)), affine[:3, :3] @ (0, 0, 1) + affine[:3, 3])


def test_a_pair_reads_the_same_in_another_process(tmp_path: Path) -> None:
    write_subject(tmp_path, "a", "train", "one")
    write_brats(tmp_path / "brats", "BraTS20_Training_001")
    for folder in (tmp_path, tmp_path / "brats"):
        pair = find_subject_pairs(folder, "train")[0]
        copy = pickle.loads(pickle.dumps(pair))
        assert np.array_equal(copy.read("T2").array_kji, pair.read("T2").array_kji)


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds nothing to train or evaluate on"):
        find_subject_pairs(tmp_path, "train")
    write_subject(tmp_path, "a", "train", "one")
    with pytest.raises(InputError, match="no HDF5 subject file of split 'test' with two contrasts"):
        find_subject_pairs(tmp_path, "test")
    (tmp_path / "b.h5").write_bytes(b"half a file")
    with pytest.raises(InputError, match=r"b\.h5 is not a whole HDF5 subject file"):
        find_subject_pairs(tmp_path, "train")


def test_splits_by_file_by_name_and_by_hash(tmp_path: Path) -> None:
    by_hash = {name: Splits(tmp_path).of(name, name) for name in (f"IXI{n:03}" for n in range(400))}
    counts = [list(by_hash.values()).count(split) for split in ("train", "val", "test")]
    assert np.allclose(counts, [320, 40, 40], atol=20)
    assert (by_hash["IXI002"], by_hash["IXI012"]) == ("train", "val"), "all machines must agree"
    assert Splits(tmp_path).of("x", "x", "multicoil_val") == "val"
    (tmp_path / "splits.json").write_text(json.dumps({"train": ["one"], "test": ["two-b"]}))
    splits = Splits(tmp_path)
    assert [splits.of(session, "one", "multicoil_val") for session in ("one-a", "one-b")] == ["train"] * 2
    assert [splits.of(session, "two") for session in ("two-a", "two-b")] == [None, "test"]


def test_a_csv_of_splits_may_have_a_header_but_no_other_splits(tmp_path: Path) -> None:
    file = tmp_path / "splits.csv"
    file.write_text("name,split\none,train\ntwo,val\n")
    assert [Splits(tmp_path).of(name, name) for name in ("one", "two", "three")] == ["train", "val", None]
    file.write_text("one,train\ntwo,validation\n")
    with pytest.raises(InputError, match="puts two into split 'validation'; known are train, val, test"):
        Splits(tmp_path)
    file.write_text("one\n")
    with pytest.raises(InputError, match="does not list names per split"):
        Splits(tmp_path)
    (tmp_path / "splits.json").write_text("[]")
    with pytest.raises(InputError, match="both splits"):
        Splits(tmp_path)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("singlecoil_train_split_less", "train"),
        ("M4Raw_val_split_less", "val"),
        ("val1", "val"),
        ("MICCAI_BraTS2020_TrainingData", "train"),
        ("retest", None),
        ("pairs", None),
    ],
)
def test_names_of_lists_and_folders_tell_the_split(name: str, split: str | None) -> None:
    assert split_in_name(name) == split


def test_prepare_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "ixi").mkdir()
    write_ixi(tmp_path / "ixi", "IXI002-Guys-0828")
    result = CliRunner().invoke(app, ["prepare", str(tmp_path / "ixi"), "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    files = sorted(tmp_path.joinpath("out").iterdir())
    assert [file.suffix for file in files] == [".h5"]
    assert f"{len(files)} subject files" in result.output
    (tmp_path / "empty").mkdir()
    refused = CliRunner().invoke(app, ["prepare", str(tmp_path / "empty"), "-o", str(tmp_path / "none")])
    assert refused.exit_code == 2
    assert "empty holds no" in " ".join(refused.output.split())
