"""Small data sets of the published structures that `mcsr.subjects` reads, made of textured blobs."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from grids import oblique_grid
from mcsr.geometry import AxisOrder, Grid
from mcsr.imageio import write_volume
from mcsr.volume import Volume
from scenes import scene


def write_subject(folder: Path, name: str, split: str, subject: str, *, all_native: bool = False) -> Path:
    """A T2 with native samples and a T1, resampled unless `all_native`, that covers slices 1 to 5."""
    grid = oblique_grid((50, 58, 6), (0.8, 0.8, 3.2), (0, 0, 0))
    # Fine texture that both contrasts share: what a reference can tell and interpolation cannot.
    texture = np.random.default_rng(len(subject)).uniform(0.6, 1.4, grid.shape_kji)
    path = folder / f"{name}.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update(
            contrasts="T2,T1",
            split=split,
            subject=subject,
            affine=grid.ijk_to_ras,
            spacing=grid.spacing_ijk_mm,
            brain_slices=(0, 4),
            citation="Nobody, Journal of Blobs 2026.",
            licence="CC-BY",
        )
        for contrast in ("T2", "T1"):
            volume = np.rint(8 * texture * scene(contrast, grid).array_kji).astype(np.uint16)
            dataset = file.create_dataset(contrast, data=volume, chunks=(1, *volume.shape[1:]), compression="gzip")
            dataset.attrs["role"] = (
                "native samples" if contrast == "T2" or all_native else "resampled to the target grid"
            )
            if contrast != "T2":
                dataset.attrs["covered_slices"] = (1, 5)
    return path


HEADER = """<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>{readout}</x><y>{columns}</y><z>1</z></matrixSize>
<fieldOfView_mm><x>99</x><y>99</y><z>7.5</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>{rows}</x><y>{columns}</y><z>1</z></matrixSize>
<fieldOfView_mm><x>{height}</x><y>{width}</y><z>4.5</z></fieldOfView_mm></reconSpace>
</encoding></ismrmrdHeader>"""
"""As fastMRI's and M4Raw's, cut down to what tells the size of an image."""


def blobs(contrast: str, slices: int = 4, rows: int = 48, columns: int = 40, seed: int = 0) -> np.ndarray:
    """Images (slices, rows, columns) of an upright head of the given contrast, 0.8 mm in plane, about 0..200."""
    grid = oblique_grid((columns, rows, slices), (0.8, 0.8, 4.5), (0, 0, 0))
    texture = np.random.default_rng(seed).uniform(0.6, 1.4, grid.shape_kji)
    return (texture * scene(contrast, grid).array_kji).astype(np.float32)


def write_kspace(
    path: Path,
    images: np.ndarray,
    *,
    coils: int = 3,
    oversampling: int = 2,
    reconstruction: bool = True,
    **attributes: str,
) -> Path:
    """A file of fastMRI's or M4Raw's structure whose root-sum-of-squares images are `images`, as they are stored.

    Args:
        path: of the file; folders are made.
        images: (slices, rows, columns).
        coils: receivers with different sensitivities; 0 for a file of emulated single-coil data.
        oversampling: of the readout, which runs along the rows.
        reconstruction: also store the images.
        attributes: such as acquisition and patient_id.
    """
    slices, rows, columns = images.shape
    readout = rows * oversampling
    wide = np.zeros((slices, readout, columns), dtype=np.complex64)
    top = (readout - rows) // 2
    wide[:, top : top + rows] = images
    if coils:
        angles = np.linspace(0, np.pi, coils, endpoint=False)[:, None, None] + np.arange(columns) / 9
        sensitivities = (
            np.sqrt(2 / coils) * np.cos(angles) * np.exp(1j * angles)
        )  # squares sum to 1 for 3 coils or more
        wide = wide[:, None] * sensitivities
    shifted = np.fft.ifftshift(wide, axes=(-2, -1))
    kspace = np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), axes=(-2, -1))
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)
        file["kspace"] = kspace.astype(np.complex64)
        header = HEADER.format(readout=readout, rows=rows, columns=columns, height=0.8 * rows, width=0.8 * columns)
        file["ismrmrd_header"] = header.encode()
        if reconstruction:
            file["reconstruction_rss"] = images
    return path


def write_fastmri(folder: Path, split: str, number: int) -> tuple[str, str]:
    """A knee pair, PD and PD with fat suppression, as published; returns the names of both files."""
    names = (f"file100{number}0", f"file100{number}1")
    for name, contrast, acquisition in zip(names, ("T1", "T2"), ("CORPD_FBK", "CORPDFS_FBK"), strict=True):
        images = blobs(contrast, seed=number)[:, ::-1]
        path = folder / f"multicoil_{split}" / f"{name}.h5"
        write_kspace(path, images, acquisition=acquisition, patient_id=f"patient-{number}")
    return names


def write_m4raw(folder: Path, split: str, session: str, repetitions: int = 2) -> None:
    """T1, T2 and FLAIR of a session, each repeated; every repetition is a little brighter than the last."""
    for contrast in ("T1", "T2", "FLAIR"):
        images = blobs("T1" if contrast == "T1" else "T2", rows=40)
        for number in range(1, repetitions + 1):
            path = folder / f"multicoil_{split}" / f"{session}_{contrast}{number:02}.h5"
            write_kspace(path, images * (1 + number / 10), coils=4, oversampling=1)


def write_ixi(folder: Path, session: str, contrasts: tuple[str, ...] = ("T1", "T2", "PD")) -> Grid:
    """T2 and PD axial, T1 sagittal on another grid of the same head; returns the grid of the T2 in LPS order."""
    upright = oblique_grid((48, 56, 9), (0.8, 0.8, 1.25), (2.0, -3.0, 1.0))
    flipped = AxisOrder((0, 1, 2), (False, True, False))  # as published: rows run upward
    for contrast in contrasts:
        if contrast == "T1":
            sagittal = AxisOrder((1, 2, 0), (False, True, False))
            volume = scene("T1", oblique_grid((30, 50, 26), (1.2, 0.95, 0.95), (0, 0, 0)), centre=upright.centre_ras)
            moved = np.eye(4)
            moved[:3, 3] = upright.centre_ras - volume.grid.centre_ras
            grid = Grid(volume.grid.shape_ijk, moved @ volume.grid.ijk_to_ras)
            volume = scene("T1", grid, centre=upright.centre_ras, dtype="int16").reordered(sagittal)
        else:
            volume = scene("T2", upright, dtype="int16").reordered(flipped)
        path = folder / f"IXI-{contrast}" / f"{session}-{contrast}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        write_volume(volume, path)
    return upright


def write_brats(folder: Path, session: str, names: tuple[str, ...] = ("_t1", "_t1ce", "_t2", "_flair")) -> Grid:
    """All contrasts and the segmentation on one 1 mm grid, the first slices empty; returns the grid in LPS order."""
    grid = Grid((44, 40, 10), np.diag([-1.0, -1.0, 1.0, 1.0]))
    (folder / session).mkdir(parents=True)
    for name in names:
        array = scene("T1" if "1" in name else "T2", grid, dtype="int16").array_kji.copy()
        array[:3] = 0
        array[array < 50] = 0  # skull-stripped
        write_volume(Volume(array, grid.ijk_to_ras, source_dtype="int16"), folder / session / f"{session}{name}.nii.gz")
    label = Volume((array > 100).astype(np.float32), grid.ijk_to_ras, source_dtype="uint8")
    write_volume(label, folder / session / f"{session}{names[0][0]}seg.nii.gz")
    return grid
