"""One DICOM series from a folder, with the checks that ITK leaves out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import InputError

# What describes the acquisition and not the patient.
_FACTS = {
    "modality": "0008|0060",
    "magnetic_field_strength": "0018|0087",
    "scanning_sequence": "0018|0020",
    "sequence_name": "0018|0024",
}
_SOP_CLASS = "0008|0016"
_POSITION = "0020|0032"
_ORIENTATION = "0020|0037"
_SLICE_THICKNESS = "0018|0050"
_SPACING_BETWEEN_SLICES = "0018|0088"
# Scanners write positions with few decimals: steps may differ by 2 % of the slice distance, cosines by 1e-3.
_STEP_TOLERANCE = 0.02
_COSINE_TOLERANCE = 1e-3


def read_dicom_series(folder: Path) -> tuple[sitk.Image, dict[str, str]]:
    """Read the one series that a folder holds, slices in the order of their places in space.

    Args:
        folder: holds the files of one series, not in subfolders; files that are not DICOM are passed over.

    Returns:
        The image (3-D) and what is known of the acquisition; nothing that identifies the patient.

    Raises:
        InputError: no series, several series, damaged files, missing slices or slices that form no regular grid.
    """
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not series:
        raise InputError(
            f"The folder {folder} holds no DICOM images; choose the folder that holds the files themselves."
        )
    if len(series) > 1:
        raise InputError(f"The folder {folder} holds {len(series)} DICOM series; choose a folder with one series only.")
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
    try:
        headers = [_header(file) for file in files]
        _check_all_read(folder, files, headers[0])
        image = _read_stack(folder, files, headers) if len(files) > 1 else _read_single(files[0], headers[0])
    except RuntimeError as error:
        raise InputError(f"The DICOM images in {folder} cannot be read; export the series again.") from error
    facts = {fact: _value(headers[0], tag) for fact, tag in _FACTS.items()}
    return image, {"format": "DICOM", **{fact: value for fact, value in facts.items() if value}}


def _header(file: str) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(file)
    reader.ReadImageInformation()
    return reader


def _value(header: sitk.ImageFileReader, tag: str) -> str:
    return header.GetMetaData(tag).strip(" \0") if header.HasMetaDataKey(tag) else ""


def _numbers(header: sitk.ImageFileReader, tag: str) -> np.ndarray:
    try:
        return np.array([float(part) for part in _value(header, tag).split("\\")])
    except ValueError:
        return np.empty(0)


def _check_all_read(folder: Path, files: tuple[str, ...], header: sitk.ImageFileReader) -> None:
    """GDCM passes damaged files over in silence: a cut-off last slice would be missed by nobody."""
    read = {Path(file).name for file in files}
    kind = _value(header, _SOP_CLASS)
    lost = sum(_sop_class(file) == kind for file in folder.iterdir() if file.is_file() and file.name not in read)
    if lost:
        raise InputError(
            f"{lost} of {lost + len(files)} DICOM images in {folder} are damaged and cannot be read; export them again."
        )


def _sop_class(file: Path) -> str:
    """What kind of DICOM object a file says to be, in its file meta information (explicit, little endian, always)."""
    with file.open("rb") as stream:
        start = stream.read(512)
    tag = start.find(b"\x02\x00\x02\x00UI")
    if start[128:132] != b"DICM" or tag < 0:
        return ""
    length = int.from_bytes(start[tag + 6 : tag + 8], "little")
    return start[tag + 8 : tag + 8 + length].decode("ascii", "replace").strip(" \0")


def _read_single(file: str, header: sitk.ImageFileReader) -> sitk.Image:
    """A multi-frame file, or a series of one slice, whose thickness ITK does not look at."""
    image = header.Execute()
    thickness = _numbers(header, _SLICE_THICKNESS)
    if (
        image.GetSize()[2] == 1
        and not _value(header, _SPACING_BETWEEN_SLICES)
        and thickness.size == 1
        and thickness > 0
    ):
        image.SetSpacing([*image.GetSpacing()[:2], float(thickness[0])])
    return image


def _read_stack(folder: Path, files: tuple[str, ...], headers: list[sitk.ImageFileReader]) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([files[n] for n in _stacking_order(folder, headers)])
    return reader.Execute()


def _stacking_order(folder: Path, headers: list[sitk.ImageFileReader]) -> np.ndarray:
    """Indices of the slices along their normal.

    Slices that form no regular grid at right angles are refused: ITK would warn and put them at wrong places.
    """
    where = f"The DICOM series in {folder}"
    if any(header.GetSize() != headers[0].GetSize() or header.GetSize()[2] != 1 for header in headers):
        raise InputError(f"{where} has slices of different sizes; choose a folder with one series of equal slices.")
    orientations = [_numbers(header, _ORIENTATION) for header in headers]
    positions = [_numbers(header, _POSITION) for header in headers]
    if any(o.size != 6 for o in orientations) or any(p.size != 3 for p in positions):
        raise InputError(f"{where} does not say where its slices lie; export the original images from the scanner.")
    rows, columns = orientations[0][:3], orientations[0][3:]
    if max(np.abs(o - orientations[0]).max() for o in orientations) > _COSINE_TOLERANCE:
        raise InputError(f"{where} has slices of different orientations (a localiser?); choose a regular series.")
    normal = np.cross(rows, columns)
    order = np.argsort([p @ normal for p in positions])
    offsets = np.array(positions)[order] - positions[order[0]]
    distances = np.diff(offsets @ normal)
    tolerance = _STEP_TOLERANCE * float(np.median(distances))
    if distances.min() <= max(tolerance, 1e-3):
        raise InputError(
            f"{where} has several images at one place (echoes or time points?); export one of them as its own series."
        )
    if np.abs(distances - np.median(distances)).max() > tolerance:
        raise InputError(
            f"{where} has missing slices or a varying slice distance "
            f"({distances.min():.2f} to {distances.max():.2f} mm); export the complete series."
        )
    sideways = np.abs(offsets - (offsets @ normal)[:, None] * normal).max()
    if sideways > tolerance + _COSINE_TOLERANCE * np.abs(offsets).max():
        raise InputError(f"{where} has slices that are shifted sideways against each other; resample it first.")
    return order
