"""A DICOM folder: slices at their places, and a sentence for every folder that is not one complete series."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from fuzz_cases import Image
from fuzz_dicom import multi_frame_dataset, save
from grids import oblique_grid
from helpers import mri, one_sentence
from mcsr.errors import InputError
from mcsr.geometry import RAS_FROM_LPS, AxisOrder, Grid, crop_grid, same_space
from mcsr.imageio import read_volume
from mcsr.volume import Volume
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

# Columns and rows are DICOM's first two axes; slices are stacked along their right-handed normal.
AXIAL, SAGITTAL, CORONAL = (
    AxisOrder((0, 1, 2), (False, False, False)),
    AxisOrder((1, 2, 0), (False, True, False)),
    AxisOrder((0, 2, 1), (False, True, False)),
)


def right_handed(volume: Volume) -> Volume:
    """Slices in the order in which DICOM readers stack them."""
    lps = (RAS_FROM_LPS @ volume.ijk_to_ras)[:3, :3]
    backwards = bool(np.linalg.det(lps) < 0)
    return volume.reordered(AxisOrder((0, 1, 2), (False, False, backwards)))


def write_series(
    folder: Path, volume: Volume, *, skip: tuple[int, ...] = (), series: str | None = None, **fields: Any
) -> list[Path]:
    """One file per slice, in the order of space; their names and numbers have nothing to do with it."""
    folder.mkdir(exist_ok=True)
    lps = RAS_FROM_LPS @ volume.ijk_to_ras
    spacing = volume.grid.spacing_ijk_mm
    cosines = (lps[:3, :3] / spacing).T
    series, study = series or generate_uid(), generate_uid()
    numbers = np.random.default_rng(5).permutation(len(volume.array_kji))
    files = []
    for k, plane in enumerate(volume.array_kji):
        if k in skip:
            continue
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Secret^Name", "S4711", "19700101"
        dataset.Modality, dataset.MagneticFieldStrength = "MR", 3
        dataset.ScanningSequence, dataset.SequenceName = "SE", "tse2d1_15"
        dataset.InstanceNumber = int(numbers[k]) + 1
        dataset.Rows, dataset.Columns = plane.shape
        dataset.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        dataset.SliceThickness = f"{spacing[2]:.6f}"
        dataset.ImageOrientationPatient = [f"{c:.10f}" for c in (*cosines[0], *cosines[1])]
        dataset.ImagePositionPatient = [f"{p:.8f}" for p in lps[:3] @ (0, 0, k, 1)]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
        dataset.PixelData = plane.astype("<u2").tobytes()
        for field, value in fields.items():
            setattr(dataset, field, value)
        files.append(folder / f"IM{numbers[k]:04d}")
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


FRAMES = Image(mri().array_kji.astype(np.uint16), mri().ijk_to_ras)


def write_frames(folder: Path, order: list[int]) -> None:
    """The slices of `FRAMES` as one enhanced MR file."""
    folder.mkdir()
    save(multi_frame_dataset(FRAMES, order), folder / "all")


@pytest.fixture(autouse=True)
def _nothing_printed(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "T2 tra"


class TestSeries:
    @pytest.mark.parametrize("order", [AXIAL, SAGITTAL, CORONAL], ids=["axial", "sagittal", "coronal"])
    @pytest.mark.parametrize("backwards", [False, True])
    def test_slices_lie_where_they_were(self, folder: Path, order: AxisOrder, backwards: bool) -> None:
        expected = right_handed(mri().reordered(order))
        written = expected.reordered(AxisOrder((0, 1, 2), (False, False, backwards)))
        write_series(folder, written)
        volume = read_volume(folder)
        assert np.array_equal(volume.array_kji, expected.array_kji)
        assert same_space(volume.grid, expected.grid, 1e-4)
        assert volume.source_dtype == "uint16"

    def test_name_and_facts_but_no_patient(self, folder: Path) -> None:
        write_series(folder, mri())
        volume = read_volume(folder)
        assert volume.name == "T2 tra"
        assert volume.facts == {
            "format": "DICOM",
            "modality": "MR",
            "magnetic_field_strength": "3.0",
            "scanning_sequence": "SE",
            "sequence_name": "tse2d1_15",
        }

    def test_one_slice_takes_its_thickness(self, folder: Path) -> None:
        one = mri(oblique_grid((24, 20, 1)))
        write_series(folder, one)
        assert same_space(read_volume(folder).grid, one.grid, 1e-4)

    def test_rescaled_intensities(self, folder: Path) -> None:
        write_series(folder, mri(), RescaleSlope="1.5", RescaleIntercept="2")
        assert np.array_equal(read_volume(folder).array_kji, mri().array_kji * 1.5 + 2)

    def test_other_files_are_passed_over(self, folder: Path) -> None:
        write_series(folder, mri())
        (folder / "notes.txt").write_text("hello")
        (folder / "random.bin").write_bytes(np.random.default_rng(0).bytes(3000))
        assert np.array_equal(read_volume(folder).array_kji, mri().array_kji)

    def test_each_slice_has_a_slope_of_its_own(self, folder: Path) -> None:
        """The first fits into integers, the others do not."""
        slopes = 1 + 0.37 * np.arange(6)
        for file, slope in zip(write_series(folder, mri()), slopes, strict=True):
            dataset = pydicom.dcmread(file)
            dataset.RescaleSlope, dataset.RescaleIntercept = f"{slope}", "0"
            dataset.save_as(file)
        expected = (mri().array_kji * slopes[:, None, None]).astype(np.float32)
        assert np.allclose(read_volume(folder).array_kji, expected, rtol=1e-6)

    @pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 0, 5, 1, 2, 4]])
    def test_frames_of_one_file_lie_where_each_says(self, folder: Path, order: list[int]) -> None:
        write_frames(folder, order)
        volume = read_volume(folder)
        assert np.array_equal(volume.array_kji, FRAMES.array)
        assert np.abs(volume.ijk_to_ras - FRAMES.matrix).max() < 1e-6

    def test_positions_with_few_decimals(self, folder: Path) -> None:
        """To 0.01 mm, as some scanners write them."""
        for file in write_series(folder, mri()):
            dataset = pydicom.dcmread(file)
            dataset.ImagePositionPatient = [f"{float(p):.2f}" for p in dataset.ImagePositionPatient]
            dataset.save_as(file)
        assert same_space(read_volume(folder).grid, mri().grid, 0.05)

    def test_cosines_with_few_decimals_give_right_angles(self, folder: Path) -> None:
        for file in write_series(folder, mri()):
            dataset = pydicom.dcmread(file)
            dataset.ImageOrientationPatient = [f"{float(c):.3f}" for c in dataset.ImageOrientationPatient]
            dataset.save_as(file)
        directions = read_volume(folder).grid.directions
        assert np.abs(directions.T @ directions - np.eye(3)).max() < 1e-12


class TestBadFolders:
    @pytest.mark.parametrize(
        ("field", "value", "word"),
        [
            ("PixelSpacing", None, "where its slices lie"),
            ("PixelSpacing", [0, 0.7], "without a size"),
            ("PixelSpacing", [-0.9, 0.7], "without a size"),
            ("ImageOrientationPatient", [1, 0, 0, 0.3, 0.954, 0], "right angles"),
            ("Rows", 21, "do not fit"),
            ("Rows", 10, "do not fit"),
            ("BitsAllocated", 8, "do not fit"),
            ("PixelData", None, "None of the 6"),
            ("PhotometricInterpretation", "PALETTE COLOR", "cannot be read"),
        ],
    )
    def test_headers_that_cannot_be_true(self, folder: Path, field: str, value: object, word: str) -> None:
        for file in write_series(folder, mri()):
            dataset = pydicom.dcmread(file)
            if value is None:
                delattr(dataset, field)
            else:
                setattr(dataset, field, value)
            dataset.save_as(file)
        with pytest.raises(InputError) as error:
            read_volume(folder)
        assert one_sentence(error, "T2 tra", word)

    def test_one_slice_of_another_pixel_size(self, folder: Path) -> None:
        file = write_series(folder, mri())[2]
        dataset = pydicom.dcmread(file)
        dataset.PixelSpacing = [1.8, 1.4]
        dataset.save_as(file)
        with pytest.raises(InputError) as error:
            read_volume(folder)
        assert one_sentence(error, "different pixel sizes")

    @pytest.mark.parametrize(
        ("order", "word"), [([0, 1, 3, 4, 5], "missing slices"), ([0, 1, 2, 2, 4, 5], "at one place")]
    )
    def test_frames_that_form_no_grid(self, folder: Path, order: list[int], word: str) -> None:
        write_frames(folder, order)
        with pytest.raises(InputError) as error:
            read_volume(folder)
        assert one_sentence(error, word)

    def test_frames_without_places(self, folder: Path) -> None:
        write_frames(folder, [0, 1, 2])
        dataset = pydicom.dcmread(folder / "all")
        del dataset.PerFrameFunctionalGroupsSequence
        dataset.save_as(folder / "all")
        with pytest.raises(InputError) as error:
            read_volume(folder)
        assert one_sentence(error, "one file", "3")

    @pytest.mark.parametrize("content", [None, "hello", "subfolder"])
    def test_no_dicom(self, folder: Path, content: str | None) -> None:
        folder.mkdir()
        if content == "hello":
            (folder / "a.txt").write_text(content)
        elif content:
            write_series(folder / "below", mri())
        with pytest.raises(InputError) as error:
            read_volume(folder)
        assert one_sentence(error, "T2 tra", "no DICOM")

    def test_two_series(self, folder: Path) -> None:
        write_series(folder, mri())
        for file in write_series(folder / "other", mri()):
            file.rename(folder / f"other{file.name}")
        with pytest.raises(InputError) as error:
            read_volume(folder)
        assert one_sentence(error, "2 DICOM series", "one series only")

    @pytest.mark.parametrize("skip", [(2,), (1, 3)])
    def test_missing_slices(self, folder: Path, skip: tuple[int, ...]) -> None:
        write_series(folder, mri(), skip=skip)
        with pytest.raises(InputError) as error:
            read_volume(folder)
        assert one_sentence(error, "missing slices", "3.10 to 6.20 mm")

    @pytest.mark.parametrize("slice_index", [0, 2, 5])
    def test_truncated_slice(self, folder: Path, slice_index: int) -> None:
        file = write_series(folder, mri())[slice_index]
        file.write_bytes(file.read_bytes()[:-300])
        with pytest.raises(InputError) as error:
            read_volume(folder)
        assert one_sentence(error, "1 of 6", "damaged")

    def test_several_images_at_one_place(self, folder: Path) -> None:
        series = generate_uid()
        write_series(folder, mri(), series=series)
        for file in write_series(folder / "echo", mri(seed=1), series=series):
            file.rename(folder / f"echo{file.name}")
        with pytest.raises(InputError) as error:
            read_volume(folder)
        assert one_sentence(error, "at one place")

    def test_shifted_sideways(self, folder: Path) -> None:
        matrix = mri().ijk_to_ras.copy()
        matrix[:3, 2] += 0.3 * matrix[:3, 0]
        write_series(folder, Volume(mri().array_kji, matrix))
        with pytest.raises(InputError) as error:
            read_volume(folder)
        assert one_sentence(error, "sideways")

    def test_localiser(self, folder: Path) -> None:
        series = generate_uid()
        cube = mri(oblique_grid((20, 20, 3), (1.0, 1.0, 1.0)))
        write_series(folder, cube, series=series)
        turned = right_handed(mri(oblique_grid((20, 20, 3), (1.0, 1.0, 1.0))).reordered(CORONAL))
        turned = Volume(np.resize(turned.array_kji, (3, 20, 20)), Grid((20, 20, 3), turned.ijk_to_ras).ijk_to_ras)
        for file in write_series(folder / "turned", turned, series=series):
            file.rename(folder / f"turned{file.name}")
        with pytest.raises(InputError) as error:
            read_volume(folder)
        assert one_sentence(error, "T2 tra")

    def test_slices_of_different_sizes(self, folder: Path) -> None:
        series = generate_uid()
        volume = mri()
        write_series(folder, volume, series=series, skip=(5,))
        smaller = crop_grid(volume.grid, (0, 0, 5), (20, 20, 1))
        (file,) = write_series(folder / "b", mri(smaller), series=series)
        file.rename(folder / "last")
        with pytest.raises(InputError) as error:
            read_volume(folder)
        assert one_sentence(error, "T2 tra")

    def test_no_positions(self, folder: Path) -> None:
        for file in write_series(folder, mri()):
            dataset = pydicom.dcmread(file)
            del dataset.ImagePositionPatient
            dataset.save_as(file)
        with pytest.raises(InputError) as error:
            read_volume(folder)
        assert one_sentence(error, "where its slices lie")

    def test_label_rule_applies(self, folder: Path) -> None:
        mask = np.zeros(mri().array_kji.shape)
        mask[1:4, 5:10, 5:10] = 1
        write_series(folder, mri().with_array(mask))
        with pytest.raises(InputError) as error:
            read_volume(folder)
        assert one_sentence(error, "label map")
