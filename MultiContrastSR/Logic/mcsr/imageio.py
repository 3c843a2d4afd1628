"""Volumes from files and to files: NIfTI, NRRD, MetaImage through SimpleITK, and folders of DICOM images."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .checks import check_scalar_mri
from .errors import GeometryError, InputError, OutputError
from .geometry import Grid, same_space
from .imageio_dicom import read_dicom_series
from .imageio_nifti import (
    MOST_VOXELS_ALONG_AXIS,
    NiftiHeader,
    check_place,
    nonfinite_voxels,
    read_nifti_header,
    write_other_voxels,
)
from .imageio_text import check_metaimage, check_nrrd
from .itk import from_itk, to_itk
from .temporary import temporary_beside
from .volume import Volume

_FORMATS = {
    ".nii.gz": "NIfTI",
    ".nii": "NIfTI",
    ".nrrd": "NRRD",
    ".nhdr": "NRRD",
    ".mha": "MetaImage",
    ".mhd": "MetaImage",
}
_IMAGE_IOS = {"NIfTI": "NiftiImageIO", "NRRD": "NrrdImageIO", "MetaImage": "MetaImageIO"}
# Header and voxels in one file, so that one rename makes the output appear.
_WRITABLE = (".nii.gz", ".nii", ".nrrd", ".mha")
_GEOMETRY_TOLERANCE_MM = 1e-3
_stderr_lock = threading.RLock()


def read_volume(path: str | Path) -> Volume:
    """Read a scalar 3-D MRI volume.

    Args:
        path: a file (.nii, .nii.gz, .nrrd, .nhdr, .mha, .mhd) or a folder that holds one DICOM series. A 4-D image with
            a single time point is taken as 3-D.

    Returns:
        The volume, named after the file (without extension) or folder; `facts` tells the format and, from DICOM,
        modality, field strength and sequence, never anything of the patient.

    Raises:
        InputError: when the path is missing, damaged, of another format, or no scalar 3-D MRI (see `check_scalar_mri`).
    """
    path = Path(path)
    try:
        if not path.exists():
            raise InputError(f"{path} does not exist; check the path.")
        if not (path.is_file() or path.is_dir()):  # reading a pipe would wait for ever
            raise InputError(f"{path} is neither a file nor a folder; choose the image itself.")
        # The image libraries write of bad files to stderr, beside the exception that becomes our one sentence.
        with _silent_stderr():
            volume = _read_dicom_folder(path) if path.is_dir() else _read_file(path)
    except OSError as error:
        raise InputError(
            f"{error.filename or path} cannot be read ({error.strerror or error}); check the file."
        ) from error
    check_scalar_mri(volume)
    return volume


def write_volume(volume: Volume, path: str | Path, dtype: str | None = None) -> None:
    """Write a volume; the file appears only when it is complete, and replaces one of that name.

    Args:
        volume: any orientation; sheared axes only as .nrrd or .mha.
        path: .nii, .nii.gz, .nrrd or .mha (all but .nii compressed) in an existing folder.
        dtype: numpy name of the stored type, `volume.source_dtype` by default; see `Volume.stored`.

    Raises:
        OutputError: unknown extension, unwritable folder, full disk, or a geometry that the format cannot hold.
    """
    path = Path(path)
    suffix = next((s for s in _WRITABLE if path.name.lower().endswith(s)), None)
    if suffix is None:
        raise OutputError(f"{path.name} has no extension that can be written; use one of {', '.join(_WRITABLE)}.")
    if suffix in (".nii", ".nii.gz"):
        if not volume.grid.is_orthogonal:
            raise OutputError(
                f"NIfTI cannot hold the sheared axes of {volume.name}; write {path.name} as .nrrd instead."
            )
        if max(volume.grid.shape_ijk) > MOST_VOXELS_ALONG_AXIS:
            raise OutputError(
                f"NIfTI holds at most {MOST_VOXELS_ALONG_AXIS} voxels along an axis, {volume.name} has more; "
                f"write {path.name} as .nrrd instead."
            )
    dtype = dtype or volume.source_dtype
    with complete_file(path) as temporary:
        try:
            if suffix == ".nii.gz":
                _write_with_itk(volume.cropped((0, 0, 0), (1, 1, 1)), temporary, dtype)
                columns, rows, _ = volume.grid.shape_ijk

                def slice_at(k: int) -> np.ndarray:
                    return volume.cropped((0, 0, k), (columns, rows, 1)).stored(dtype)

                write_other_voxels(temporary, volume.grid.shape_ijk, slice_at)
            else:
                _write_with_itk(volume, temporary, dtype)
            _check_written(temporary, volume.grid)
        except OutputError:
            raise
        except (RuntimeError, InputError) as error:
            raise OSError("no space left, or the folder is not writable") from error


@contextlib.contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder and with the same extensions, renamed to `path` if all goes well.

    Whatever goes wrong, the temporary file is removed and an older file at `path` stays as it was.

    Raises:
        OutputError: in place of any `OSError` (no such folder, not writable, full disk).
    """
    check_folder_of(path)
    temporary = temporary_beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{path} cannot be written ({reason}); choose a writable folder with enough space."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_output_path(path: str | Path, inputs: Iterable[str | Path]) -> None:
    """Refuse an output that would overwrite an input.

    Args:
        path: where a file is to be written.
        inputs: files, or folders of DICOM images; links of both kinds are followed.

    Raises:
        OutputError: also when `path` is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file to write.")
    for source in map(Path, inputs):
        files = source.iterdir() if source.is_dir() else [source]
        if any(_same_file(path, file) for file in files):
            raise OutputError(f"Writing {path} would overwrite the input {source}; choose another output.")


def check_folder_of(path: Path) -> None:
    """Refuse a file in a folder that does not exist: said before long work rather than after it.

    Raises:
        OutputError: when there is no such folder.
    """
    if not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: there is no folder {path.parent}; create it first.")


def prepare_output_folder(folder: str | Path, inputs: Iterable[str | Path], outputs: Iterable[str] = ()) -> Path:
    """Make sure that outputs can be written into a folder, which is created where it is missing.

    Args:
        folder: of the outputs.
        inputs: files or DICOM folders that no output may overwrite.
        outputs: names of the files to be written, relative to the folder.

    Returns:
        The folder.

    Raises:
        OutputError: when it cannot be created or written to, or when an output would overwrite an input.
    """
    folder, inputs = Path(folder), list(inputs)
    missing: list[Path] = []
    probe = temporary_beside(folder / "probe")
    try:
        for name in outputs:
            check_output_path(folder / name, inputs)
        missing += [f for f in (folder, *folder.parents) if not f.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        # A full disk lets a file be created, but not filled.
        probe.write_bytes(bytes(4096))
        probe.unlink()
    except OSError as error:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
        for created in missing:
            with contextlib.suppress(OSError):
                created.rmdir()
        reason = error.strerror or str(error)
        raise OutputError(f"The folder {folder} cannot be written to ({reason}); choose another one.") from error
    return folder


def _suffix(path: Path) -> str:
    suffix = next((s for s in _FORMATS if path.name.lower().endswith(s)), None)
    if suffix is None:
        raise InputError(
            f"{path.name} is of no supported format ({', '.join(_FORMATS)}, or a folder with one DICOM series); "
            "convert it first."
        )
    return suffix


def _read_dicom_folder(path: Path) -> Volume:
    image, facts = read_dicom_series(path)
    return replace(from_itk(image, path.resolve().name), facts=facts)


def _read_file(path: Path) -> Volume:
    suffix = _suffix(path)
    kind = _FORMATS[suffix]
    nifti, nonfinite = None, None
    try:
        nifti = _checked_header(path)
        reader = _header(path)
        _check_scalar_3d(reader, path.name)
        if nifti is not None:
            nonfinite = nonfinite_voxels(path, nifti)
        image = reader.Execute()
    except RuntimeError as error:
        if "orthonormal" in str(error):
            raise GeometryError(
                f"{path.name} has sheared axes in its sform, which cannot be used as they are; "
                "resample it to a grid at right angles first."
            ) from error
        raise InputError(f"{path.name} is damaged or not a {kind} image; export it again.") from error
    volume = from_itk(image[:, :, :, 0] if image.GetDimension() == 4 else image, path.name[: -len(suffix)])
    volume = replace(volume, facts={"format": kind})
    if nifti is not None:
        check_place(volume.grid, nifti, path.name)
    if nonfinite is None:
        return volume
    return replace(volume, array_kji=np.where(nonfinite.reshape(volume.array_kji.shape), np.nan, volume.array_kji))


def _checked_header(path: Path) -> NiftiHeader | None:
    """What ITK would not notice, or not survive, is refused before it reads a byte."""
    kind = _FORMATS[_suffix(path)]
    if kind == "NIfTI":
        return read_nifti_header(path)
    (check_nrrd if kind == "NRRD" else check_metaimage)(path)
    return None


def _header(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    # Named, so that a picture with the wrong extension is not read as something else.
    reader.SetImageIO(_IMAGE_IOS[_FORMATS[_suffix(path)]])
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def _check_scalar_3d(header: sitk.ImageFileReader, name: str) -> None:
    """Asked of the header: a long time series need not be loaded to be refused."""
    size, components = header.GetSize(), header.GetNumberOfComponents()
    if components != 1:
        raise InputError(
            f"{name} has {components} values per voxel (colour, vector or complex); a scalar MRI volume is needed."
        )
    if len(size) < 3 or len(size) > 4 or math.prod(size[3:]) != 1:
        raise InputError(
            f"{name} is a {len(size)}-D image of {' x '.join(map(str, size))} voxels; extract one 3-D volume first."
        )


def _write_with_itk(volume: Volume, path: Path, dtype: str) -> None:
    suffix = _suffix(path)
    writer = sitk.ImageFileWriter()
    writer.SetImageIO(_IMAGE_IOS[_FORMATS[suffix]])
    writer.SetFileName(str(path))
    writer.SetUseCompression(suffix != ".nii")
    with _silent_stderr():
        writer.Execute(to_itk(volume, dtype))


def _check_written(path: Path, grid: Grid) -> None:
    """A full disk lets ITK cut a .nii file short without any error; and a geometry must come back as it was given."""
    nifti = _checked_header(path)
    if nifti is not None and _suffix(path) == ".nii":
        nonfinite_voxels(path, nifti)
    with _silent_stderr():
        header = _header(path)
    probe = sitk.Image([1, 1, 1], sitk.sitkUInt8)
    probe.SetOrigin(header.GetOrigin())
    probe.SetSpacing(header.GetSpacing())
    probe.SetDirection(header.GetDirection())
    written = Grid(grid.shape_ijk, from_itk(probe, path.name).ijk_to_ras)
    if header.GetSize() != grid.shape_ijk or not same_space(written, grid, _GEOMETRY_TOLERANCE_MM):
        raise OutputError("This format cannot hold the geometry of the volume; write it as .nrrd instead.")


def _same_file(a: Path, b: Path) -> bool:
    if a.exists() and b.exists():
        return os.path.samefile(a, b)
    return a.resolve() == b.resolve()


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Send what C and C++ code writes to the process's stderr to nowhere; does nothing where there is no stderr."""
    with _stderr_lock, contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, AttributeError, ValueError):
            sys.stderr.flush()
            kept = os.dup(2)
            stack.callback(os.close, kept)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, nowhere)
            os.dup2(nowhere, 2)
            stack.callback(os.dup2, kept, 2)
        yield
