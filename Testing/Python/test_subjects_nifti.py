"""IXI and BraTS: NIfTI folders of the published structure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mcsr.errors import InputError
from mcsr.geometry import same_space
from mcsr.imageio import read_volume, write_volume
from mcsr.subjects import find_subject_pairs
from scenes import scene
from subject_files import write_brats, write_ixi

SESSION = "IXI002-Guys-0828"


def test_ixi_is_brought_onto_the_grid_of_its_t2(tmp_path: Path) -> None:
    grid = write_ixi(tmp_path, SESSION)
    pairs = {pair.key: pair for pair in find_subject_pairs(tmp_path, "train")}
    assert sorted(pairs) == [f"{SESSION} {key}" for key in ("PD<-T1", "PD<-T2", "T2<-PD", "T2<-T1")]
    pair = pairs[f"{SESSION} T2<-T1"]
    assert (pair.subject, pair.plane, pair.auxiliary) == ("IXI002", "axial", False)
    assert same_space(pair.session.grid, grid, 1e-3)
    target, reference = pair.read("T2"), pair.read("T1")
    expected = scene("T2", grid, dtype="int16").array_kji
    assert np.array_equal(target.array_kji, expected[pair.slices.start : pair.slices.stop]), "samples as acquired"
    # The T1 was sampled at 1 mm from another direction, but shows the same head at the same place.
    truth = scene("T1", grid).array_kji[pair.slices.start : pair.slices.stop]
    assert np.corrcoef(reference.array_kji.ravel(), truth.ravel())[0, 1] > 0.99
    assert np.abs(reference.array_kji - truth).mean() < 0.03 * truth.max()


def test_slices_without_signal_are_left_out(tmp_path: Path) -> None:
    write_brats(tmp_path, "BraTS20_Training_001")
    (pair, *_) = find_subject_pairs(tmp_path, "train")
    assert pair.slices == range(3, 10)
    assert pair.read("T1").array_kji.shape == (7, 40, 44)


@pytest.mark.parametrize(
    ("session", "subject", "names"),
    [
        ("BraTS20_Training_001", "BraTS20_Training_001", ("_t1", "_t1ce", "_t2", "_flair")),
        ("BraTS-GLI-00002-001", "BraTS-GLI-00002", ("-t1n", "-t1c", "-t2w", "-t2f")),
        ("Brats18_2013_2_1", "Brats18_2013_2_1", ("_t1", "_t1ce", "_t2", "_flair")),
    ],
)
def test_brats_of_all_years_has_the_same_contrasts(
    tmp_path: Path, session: str, subject: str, names: tuple[str, ...]
) -> None:
    grid = write_brats(tmp_path / "BraTS", session, names)
    (tmp_path / "BraTS" / "splits.csv").write_text(f"{session},val\n")
    pairs = find_subject_pairs(tmp_path / "BraTS", "val")
    assert len(pairs) == 12
    assert {pair.subject for pair in pairs} == {subject}
    assert f"{session} T1Gd<-FLAIR" in [pair.key for pair in pairs]
    assert same_space(pairs[0].session.grid, grid)


def test_brats_is_auxiliary_and_the_segmentation_no_contrast(tmp_path: Path) -> None:
    write_brats(tmp_path, "BraTS20_Training_001")
    pair = find_subject_pairs(tmp_path, "train")[0]
    assert pair.auxiliary
    assert sorted(pair.session.contrasts) == ["FLAIR", "T1", "T1Gd", "T2"]


def test_time_points_of_a_subject_are_in_one_split(tmp_path: Path) -> None:
    for number in range(4):
        for point in (0, 1):
            write_brats(tmp_path, f"BraTS-GLI-{number:05}-{point:03}", ("-t1n", "-t2w"))
    splits: dict[str, set[str]] = {}
    for split in ("train", "val", "test"):
        try:
            pairs = find_subject_pairs(tmp_path, split)
        except InputError:
            continue
        for pair in pairs:
            splits.setdefault(pair.subject, set()).add(split)
    assert len(splits) == 4
    assert all(len(found) == 1 for found in splits.values())


def test_mistakes_are_named(tmp_path: Path) -> None:
    write_ixi(tmp_path, SESSION, ("T1", "PD"))
    (tmp_path / "splits.json").write_text(json.dumps({"val": ["IXI002"]}))
    assert [pair.key for pair in find_subject_pairs(tmp_path, "val")] == [f"{SESSION} PD<-T1"]
    with pytest.raises(InputError, match="no IXI session of split 'train' with two contrasts"):
        find_subject_pairs(tmp_path, "train")
    file = tmp_path / "IXI-PD" / f"{SESSION}-PD.nii.gz"
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(InputError, match="are the same contrast"):
        find_subject_pairs(tmp_path, "val")


def test_images_that_do_not_fit_are_named(tmp_path: Path) -> None:
    write_ixi(tmp_path, SESSION, ("T2", "PD", "T1"))
    (tmp_path / "splits.json").write_text(json.dumps({"val": [SESSION]}))
    file = tmp_path / "IXI-PD" / f"{SESSION}-PD.nii.gz"
    moved = np.eye(4)
    moved[2, 3] = 3.0
    write_volume(read_volume(file).moved(moved), file)
    (pair,) = find_subject_pairs(tmp_path, "val", contrasts=["PD<-T1"])
    with pytest.raises(InputError, match=rf"{SESSION}-PD\.nii\.gz is not on the grid of {SESSION}-T2\.nii\.gz"):
        pair.read("PD")
    file = tmp_path / "IXI-T1" / f"{SESSION}-T1.nii.gz"
    moved[2, 3] = 300.0
    write_volume(read_volume(file).moved(moved), file)
    (pair,) = find_subject_pairs(tmp_path, "val", contrasts=["T2<-T1"])
    with pytest.raises(InputError, match=f"T2 and T1 of {SESSION} have no slice in common"):
        pair.read("T2")


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    write_ixi(tmp_path, SESSION, ("T2", "PD"))
    file = tmp_path / "IXI-PD" / f"{SESSION}-PD.nii.gz"
    file.write_bytes(file.read_bytes()[:-100])
    pair = find_subject_pairs(tmp_path, "train")[0]
    with pytest.raises(InputError, match="is truncated or damaged"):
        pair.read("PD")
