"""One DICOM series from a folder, with the checks that ITK leaves out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import InputError
from .imageio_dicom_bytes import decimal_values, pixel_data_lengths, sop_class

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
_PIXEL_SPACING = "0028|0030"
_SLICE_THICKNESS = "0018|0050"
_SPACING_BETWEEN_SLICES = "0018|0088"
_RESCALING = ("0028|1052", "0028|1053")
_OF_FRAMES = (_ORIENTATION, _PIXEL_SPACING)
# Samples per pixel, rows, columns, bits of a sample.
_SIZES = ("0028|0002", "0028|0010", "0028|0011", "0028|0100")
_FRAMES = "0028|0008"
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
    try:
        series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
        if not series:
            raise _no_series(folder)
        if len(series) > 1:
            raise InputError(
                f"The folder {folder} holds {len(series)} DICOM series; choose a folder with one series only."
            )
        files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
        headers = [_header(file) for file in files]
        _check_all_read(folder, files, headers[0])
        for file, header in zip(files, headers, strict=True):
            _check_pixel_data(Path(file), header)
        where = f"The DICOM series in {folder}"
        frames = len(files) == 1 and (headers[0].GetSize()[2] > 1 or not _value(headers[0], _POSITION))
        image = _read_frames(where, Path(files[0]), headers[0]) if frames else _read_stack(where, headers)
    except RuntimeError as error:
        raise InputError(
            f"The DICOM images in {folder} cannot be read; export the series again, not compressed."
        ) from error
    facts = {fact: _value(headers[0], tag) for fact, tag in _FACTS.items()}
    return image, {"format": "DICOM", **{fact: value for fact, value in facts.items() if value}}


def _no_series(folder: Path) -> InputError:
    count = sum(sop_class(file) != "" for file in folder.iterdir() if file.is_file())
    if count:
        return InputError(
            f"None of the {count} DICOM files in {folder} can be read as an image; export the series again, not "
            "compressed."
        )
    return InputError(f"The folder {folder} holds no DICOM images; choose the folder that holds the files themselves.")


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
    lost = sum(sop_class(file) == kind for file in folder.iterdir() if file.is_file() and file.name not in read)
    if lost:
        raise InputError(
            f"{lost} of {lost + len(files)} DICOM images in {folder} are damaged and cannot be read; export them again."
        )


def _check_pixel_data(file: Path, header: sitk.ImageFileReader) -> None:
    """GDCM makes an image of any size of the pixel data, whatever their length."""
    sizes = [_numbers(header, tag) for tag in _SIZES]
    if any(size.size != 1 for size in sizes):
        return
    frames = _numbers(header, _FRAMES)
    expected = math.prod(int(size[0]) for size in sizes) * (int(frames[0]) if frames.size else 1) // 8
    lengths = pixel_data_lengths(file.read_bytes())
    if lengths and not {expected, expected + expected % 2} & set(lengths):
        raise InputError(
            f"The pixel data of {file} ({max(lengths)} bytes) do not fit the size in its header ({expected} bytes); "
            "export the series again."
        )


def _read_frames(where: str, file: Path, header: sitk.ImageFileReader) -> sitk.Image:
    """The frames of one file in the order of their places, at which ITK does not look one by one."""
    content = file.read_bytes()
    tags = (_POSITION, *_OF_FRAMES, *_RESCALING, _SLICE_THICKNESS)
    values = {tag: decimal_values(content, (int(tag[:4], 16), int(tag[5:], 16))) for tag in tags}
    same = {tag: np.unique(values[tag], axis=0) for tag in (*_OF_FRAMES, *_RESCALING)}
    positions, frames = list(values[_POSITION]), header.GetSize()[2]
    if len(positions) != frames or any(len(same[tag]) != 1 for tag in _OF_FRAMES):
        raise InputError(
            f"{where} is one file that does not say where each of its frames ({frames}) lies; export one file for each "
            "slice."
        )
    if any(len(same[tag]) > 1 for tag in _RESCALING):
        raise InputError(f"{where} scales its frames differently; export one file for each slice.")
    orientation, spacing = same[_ORIENTATION][0], same[_PIXEL_SPACING][0]
    order, distance = _stacking_order(where, positions, [orientation] * frames, [spacing])
    slices = sitk.GetArrayFromImage(header.Execute())[order]
    distance = distance or _thickness(header, values[_SLICE_THICKNESS].ravel())
    return _stacked(slices, positions[order[0]], orientation, spacing, distance)


def _read_stack(where: str, headers: list[sitk.ImageFileReader]) -> sitk.Image:
    """Files of one slice each. (ITK's reader of series rounds all slices to the type that holds the first.)"""
    if any(header.GetSize() != headers[0].GetSize() or header.GetSize()[2] != 1 for header in headers):
        raise InputError(f"{where} has slices of different sizes; choose a folder with one series of equal slices.")
    positions, orientations, spacings = (
        [_numbers(header, tag) for header in headers] for tag in (_POSITION, _ORIENTATION, _PIXEL_SPACING)
    )
    order, distance = _stacking_order(where, positions, orientations, spacings)
    slices = np.concatenate([sitk.GetArrayFromImage(headers[n].Execute()) for n in order])
    distance = distance or _thickness(headers[0], _numbers(headers[0], _SLICE_THICKNESS))
    return _stacked(slices, positions[order[0]], orientations[order[0]], spacings[order[0]], distance)


def _thickness(header: sitk.ImageFileReader, known: np.ndarray) -> float:
    """Of a single slice, mm; ITK looks at the distance between slices alone."""
    if _value(header, _SPACING_BETWEEN_SLICES) or not known.size or not known[0] > 0:
        return float(header.GetSpacing()[2])
    return float(known[0])


def _stacked(
    slices: np.ndarray, position: np.ndarray, orientation: np.ndarray, spacing: np.ndarray, distance: float
) -> sitk.Image:
    """Slices (K, J, I) in their order along the normal; `spacing` is that of rows, then columns."""
    image = sitk.GetImageFromArray(slices)
    # Cosines come with few decimals, and NIfTI holds nothing but right angles.
    rows = orientation[:3] / np.linalg.norm(orientation[:3])
    normal = np.cross(rows, orientation[3:])
    normal /= np.linalg.norm(normal)
    image.SetOrigin(position.tolist())
    image.SetSpacing([float(spacing[1]), float(spacing[0]), distance])
    image.SetDirection(np.stack([rows, np.cross(normal, rows), normal], axis=1).ravel().tolist())
    return image


def _stacking_order(
    where: str, positions: list[np.ndarray], orientations: list[np.ndarray], spacings: list[np.ndarray]
) -> tuple[np.ndarray, float | None]:
    """Indices of the slices along their normal, and the distance (mm) between them, None for a single one.

    Slices that form no regular grid at right angles are refused: ITK would warn and put them at wrong places.
    """
    sizes = [(3, positions), (6, orientations), (2, spacings)]
    if any(value.size != size or not np.isfinite(value).all() for size, values in sizes for value in values):
        raise InputError(f"{where} does not say where its slices lie; export the original images from the scanner.")
    if min(spacing.min() for spacing in spacings) <= 0:
        raise InputError(f"{where} has pixels without a size; export the original images from the scanner.")
    if max(np.abs(s / spacings[0] - 1).max() for s in spacings) > _COSINE_TOLERANCE:
        raise InputError(f"{where} has slices of different pixel sizes; choose a regular series.")
    rows, columns = orientations[0][:3], orientations[0][3:]
    if np.abs([rows @ rows - 1, columns @ columns - 1, rows @ columns]).max() > 2 * _COSINE_TOLERANCE:
        raise InputError(f"{where} has rows and columns that are not at right angles; resample it first.")
    if max(np.abs(o - orientations[0]).max() for o in orientations) > _COSINE_TOLERANCE:
        raise InputError(f"{where} has slices of different orientations (a localiser?); choose a regular series.")
    normal = np.cross(rows, columns)
    order = np.argsort([p @ normal for p in positions])
    if len(positions) == 1:
        return order, None
    offsets = np.array(positions)[order] - positions[order[0]]
    distances = np.diff(offsets @ normal)
    distance = float(np.median(distances))
    tolerance = _STEP_TOLERANCE * distance
    if distances.min() <= max(tolerance, 1e-3):
        raise InputError(
            f"{where} has several images at one place (echoes or time points?); export one of them as its own series."
        )
    if np.abs(distances - distance).max() > tolerance:
        raise InputError(
            f"{where} has missing slices or a varying slice distance "
            f"({distances.min():.2f} to {distances.max():.2f} mm); export the complete series."
        )
    sideways = np.abs(offsets - (offsets @ normal)[:, None] * normal).max()
    if sideways > tolerance + _COSINE_TOLERANCE * np.abs(offsets).max():
        raise InputError(f"{where} has slices that are shifted sideways against each other; resample it first.")
    return order, float(offsets[-1] @ normal) / (len(offsets) - 1)
