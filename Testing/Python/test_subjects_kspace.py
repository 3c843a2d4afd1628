"""fastMRI and M4Raw: images from files of the published structure, paired by lists and by names."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from mcsr.errors import InputError
from mcsr.subjects import find_subject_pairs
from mcsr.subjects_kspace import read_images
from subject_files import blobs, write_fastmri, write_kspace, write_m4raw

EVERYTHING = slice(None)


@pytest.mark.parametrize("coils", [4, 0])
def test_images_are_computed_from_kspace_where_none_are_stored(tmp_path: Path, coils: int) -> None:
    images = blobs("T2", slices=3, rows=48, columns=41)
    computed = write_kspace(tmp_path / "a.h5", images, coils=coils, reconstruction=False)
    assert np.allclose(read_images(computed, EVERYTHING), images, atol=2e-5 * images.max())
    assert np.allclose(read_images(computed, slice(1, 2)), images[1:2], atol=2e-5 * images.max())
    stored = write_kspace(tmp_path / "b.h5", images + 1, coils=coils)
    assert np.array_equal(read_images(stored, EVERYTHING), images + 1)


def test_of_a_single_coil_file_its_own_image_is_read(tmp_path: Path) -> None:
    path = write_kspace(tmp_path / "a.h5", blobs("T2"), coils=0)
    with h5py.File(path, "a") as file:
        file["reconstruction_esc"] = file["reconstruction_rss"][()] / 2
    assert np.allclose(read_images(path, EVERYTHING), blobs("T2") / 2)


def test_fastmri_is_paired_by_its_lists(tmp_path: Path) -> None:
    (train, other), val = (write_fastmri(tmp_path, "train", n) for n in (1, 2)), write_fastmri(tmp_path, "val", 3)
    list_of_train = tmp_path / "singlecoil_train_split_less.csv"
    list_of_train.write_text(f"{train[0]},{train[1]},0.89\n{other[0]},{other[1]},0.83\n")
    (tmp_path / "singlecoil_val_split_less.csv").write_text(f"PDWI,FSPDWI,\n{val[0]}.h5,{val[1]}.h5,\n")
    pairs = find_subject_pairs(tmp_path, "train")
    assert [pair.key for pair in pairs] == ["file10011 PDFS<-PD", "file10021 PDFS<-PD"]
    assert [pair.subject for pair in pairs] == ["patient-1", "patient-2"]
    (pair,) = find_subject_pairs(tmp_path, "val")
    assert (pair.key, pair.subject, pair.slices) == ("file10031 PDFS<-PD", "patient-3", range(4))
    # Knees are coronal, and published with their rows from below.
    assert pair.plane == "coronal"
    volume = pair.read("PDFS")
    assert np.array_equal(volume.array_kji, blobs("T2", seed=3))
    assert np.array_equal(pair.read("PD").array_kji, blobs("T1", seed=3))
    assert volume.grid.axis_codes == "LIP"
    assert np.allclose(volume.grid.spacing_ijk_mm, (0.8, 0.8, 4.5))


def test_columns_and_rows_have_their_own_spacing(tmp_path: Path) -> None:
    for name, acquisition in (("file1", "AXT1"), ("file2", "AXT2")):
        path = write_kspace(tmp_path / f"{name}.h5", blobs("T2"), acquisition=acquisition, patient_id="one")
        with h5py.File(path, "a") as file:
            header = file["ismrmrd_header"][()].decode().replace("<x>38.4", "<x>48.0")  # mm along 48 rows
            del file["ismrmrd_header"]
            file["ismrmrd_header"] = header.encode()
    (tmp_path / "train.csv").write_text("file1,file2\n")
    (pair,) = find_subject_pairs(tmp_path, "train")
    assert (pair.key, pair.plane) == ("file2 T2<-T1", "axial")
    assert np.allclose(pair.session.grid.spacing_ijk_mm, (0.8, 1.0, 4.5))
    assert pair.session.grid.axis_codes == "LPS"
    assert pair.spacing_mm == pytest.approx(1.0)


def test_fastmri_mistakes_are_named(tmp_path: Path) -> None:
    reference, target = write_fastmri(tmp_path, "train", 1)
    with pytest.raises(InputError, match="holds fastMRI files but no pairing list"):
        find_subject_pairs(tmp_path, "train")
    pairing = tmp_path / "train.csv"
    for rows, message in (
        (f"{reference},file9\n", r"train\.csv names file9\.h5, which is not in"),
        (f"{reference}\n", "a row without two file names"),
        (f"{reference},{reference}\n", "are paired but both are PD"),
    ):
        pairing.write_text(rows)
        with pytest.raises(InputError, match=message):
            find_subject_pairs(tmp_path, "train")
    pairing.write_text(f"{reference},{target}\n")
    with pytest.raises(InputError, match="no fastMRI pair of split 'val'"):
        find_subject_pairs(tmp_path, "val")
    path = tmp_path / "multicoil_train" / f"{target}.h5"
    with h5py.File(path, "a") as file:
        file["mask"] = np.ones(40)
    with pytest.raises(InputError, match="is undersampled"):
        find_subject_pairs(tmp_path, "train")
    write_kspace(path, blobs("T2", rows=40), acquisition="CORPDFS_FBK")
    with pytest.raises(InputError, match=r"different sizes \(40 x 40 and 48 x 40\)"):
        find_subject_pairs(tmp_path, "train")
    with h5py.File(path, "a") as file:
        del file["ismrmrd_header"]
    with pytest.raises(InputError, match=f"{target}.h5 is not a whole fastMRI or M4Raw file"):
        find_subject_pairs(tmp_path, "train")
    path.rename(tmp_path / f"{reference}.h5")
    with pytest.raises(InputError, match="have the same name"):
        find_subject_pairs(tmp_path, "train")


def test_m4raw_sessions_are_paired_by_name_and_repetitions_averaged(tmp_path: Path) -> None:
    write_m4raw(tmp_path, "train", "2022061003")
    write_m4raw(tmp_path, "val", "2022062501", repetitions=1)
    pairs = {pair.key: pair for pair in find_subject_pairs(tmp_path, "train")}
    assert len(pairs) == 6
    pair = pairs["2022061003 T2<-T1"]
    assert (pair.subject, pair.slices, pair.plane) == ("2022061003", range(4), "axial")
    assert np.allclose(pair.read("T2").array_kji, 1.15 * blobs("T2", rows=40), rtol=1e-5)
    assert "2022062501 FLAIR<-T2" in [pair.key for pair in find_subject_pairs(tmp_path, "val")]


def test_a_list_of_m4raw_names_single_repetitions_or_their_mean(tmp_path: Path) -> None:
    write_m4raw(tmp_path, "train", "2022061003")
    pairing = tmp_path / "M4Raw_train_split_less.csv"
    pairing.write_text("2022061003_T101,2022061003_T202\n2022061003_T1,2022061003_T2\n")
    single, mean = find_subject_pairs(tmp_path, "train")
    assert [single.key, mean.key] == ["2022061003_T202 T2<-T1", "2022061003_T2 T2<-T1"]
    assert np.allclose(single.read("T2").array_kji, 1.2 * blobs("T2", rows=40), rtol=1e-5)
    assert np.allclose(single.read("T1").array_kji, 1.1 * blobs("T1", rows=40), rtol=1e-5)
    assert np.allclose(mean.read("T1").array_kji, 1.15 * blobs("T1", rows=40), rtol=1e-5)
    with pytest.raises(InputError, match="no M4Raw session of split 'val'"):
        find_subject_pairs(tmp_path, "val")
