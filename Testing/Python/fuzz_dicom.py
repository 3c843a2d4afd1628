"""DICOM series made by hand: one file for each slice, or one for all, in any transfer syntax."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from fuzz_cases import Image
from fuzz_files import LPS
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

SYNTAXES = ("explicit", "implicit", "big endian", "deflated", "rle", "JPEG", "JPEG2000")
_WRITTEN_BY_PYDICOM = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
}


def right_handed(image: Image) -> bool:
    """Whether slices in their order run along the normal of columns and rows, as readers stack them."""
    return bool(np.linalg.det(image.matrix[:3, :3]) > 0)


def slice_datasets(image: Image) -> list[Dataset]:
    """One data set for each slice (K) of 16 bit voxels, all of one series."""
    series, study, common = generate_uid(), generate_uid(), _orientation(image)
    datasets = []
    for k, plane in enumerate(image.array):
        dataset = _dataset(MRImageStorage, plane)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.InstanceNumber = k + 1
        dataset.PixelSpacing, dataset.ImageOrientationPatient = common
        dataset.SliceThickness = f"{image.spacing[2]:.8f}"
        dataset.ImagePositionPatient = _position(image, k)
        datasets.append(dataset)
    return datasets


def multi_frame_dataset(image: Image, order: list[int]) -> Dataset:
    """One enhanced MR data set, whose frames are the slices in `order`."""
    dataset = _dataset(EnhancedMRImageStorage, image.array[order])
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.NumberOfFrames = len(order)
    measures, plane, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, plane.ImageOrientationPatient = _orientation(image)
    measures.SliceThickness = f"{image.spacing[2]:.8f}"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for k in order:
        place, frame = Dataset(), Dataset()
        place.ImagePositionPatient = _position(image, k)
        frame.PlanePositionSequence = [place]
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    return dataset


def save(dataset: Dataset, path: Path, syntax: str = "explicit") -> None:
    """Write a data set of little-endian voxels in one of `SYNTAXES`."""
    if syntax in _WRITTEN_BY_PYDICOM:
        dataset.file_meta.TransferSyntaxUID = UID(_WRITTEN_BY_PYDICOM[syntax])
        if syntax == "big endian":
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset["PixelData"].VR = "OW"
        little, implicit = syntax != "big endian", syntax == "implicit"
        pydicom.dcmwrite(path, dataset, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
        return
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if syntax == "rle":
        dataset.compress(RLELossless)
    dataset.save_as(path, enforce_file_format=True)
    if syntax != "rle":
        _compress_by_itk(path, syntax)


def _compress_by_itk(path: Path, compressor: str) -> None:
    named = path.with_suffix(".dcm")
    image = sitk.ReadImage(str(path), imageIO="GDCMImageIO")
    path.unlink()
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    writer.SetFileName(str(named))
    writer.Execute(image)
    compressed = pydicom.dcmread(named)
    del compressed.SpacingBetweenSlices  # ITK's own, 1 mm whatever the slices are
    compressed.save_as(path)
    named.unlink()


def changed(datasets: list[Dataset], which: int, change: Callable[[Dataset], None]) -> None:
    """Change one of them, or all for -1."""
    for dataset in datasets if which < 0 else [datasets[which]]:
        change(dataset)


def _dataset(kind: UID, voxels: np.ndarray) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = kind
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.Modality = "MR"
    dataset.Rows, dataset.Columns = voxels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, int(voxels.dtype.kind == "i")
    dataset.PixelData = voxels.astype(voxels.dtype.newbyteorder("<")).tobytes()
    return dataset


def _orientation(image: Image) -> tuple[list[str], list[str]]:
    """Pixel spacing (rows, columns) and the cosines of both axes."""
    cosines = (image.matrix[:3, :2] / image.spacing[:2] * LPS[:, None]).T.ravel()
    return [f"{image.spacing[1]:.9f}", f"{image.spacing[0]:.9f}"], [f"{c:.10f}" for c in cosines]


def _position(image: Image, k: int) -> list[str]:
    return [f"{x:.8f}" for x in (image.matrix @ (0, 0, k, 1))[:3] * LPS]
