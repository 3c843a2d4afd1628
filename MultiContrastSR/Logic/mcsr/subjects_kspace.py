"""fastMRI and M4Raw: HDF5 files of multi-coil k-space, one per acquisition, as published.

Each holds `kspace` (slices, coils, rows, columns; single-coil files without coils), `ismrmrd_header` (XML with the
spacing) and mostly the image, `reconstruction_rss` (slices, rows, columns). They may lie in folders below, such as
multicoil_train and multicoil_val.

What belongs together is said by pairing lists as MINet and DCAMSR published them: csv files in the folder whose rows
begin with the reference and the target (file names with or without .h5; further columns and a header are passed
over), named after their split, such as singlecoil_train_split_less.csv. fastMRI needs them; of M4Raw, whose names tell
session, contrast and repetition (2022061003_T101.h5), all contrasts of a session are paired without them.
"""

from __future__ import annotations

import csv
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from .errors import InputError
from .geometry import PLANES, Grid, display_order
from .subjects_session import SPLIT_FILES, Session, Splits, split_in_name

FASTMRI_ORIGIN = (
    "Zbontar et al., arXiv:1811.08839; Knoll et al., Radiology: Artificial Intelligence 2020.",
    "fastMRI data sharing agreement",
)
M4RAW_ORIGIN = ("Lyu et al., Scientific Data 2023.", "CC BY 4.0")

_M4RAW_NAME = re.compile(r"(?P<session>\d{6,})_(?P<contrast>T1|T2|FLAIR|GRE)\d\d")
_ACQUISITIONS = {
    "CORPD_FBK": "PD",
    "CORPDFS_FBK": "PDFS",
    "AXT1": "T1",
    "AXT1PRE": "T1",
    "AXT1POST": "T1Gd",
    "AXT2": "T2",
    "AXFLAIR": "FLAIR",
}
# The first that a file has is its image: single-coil files have both, and the first is their own.
_IMAGES = ("reconstruction_esc", "reconstruction_rss")


class _Acquisition(NamedTuple):
    """What is to know of a file before its images; `shape` and `spacing_mm` run along columns, rows and slices."""

    path: Path
    subject: str
    contrast: str
    plane: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class KspaceSession(Session):
    """Acquisitions of one size; what was repeated is averaged.

    Args:
        files: of each contrast its repetitions.
        image_grid: the files do not say where the slices lie, only in which plane and how large they are.
        rows_reversed: rows are stored from below, as those of fastMRI are.
    """

    files: Mapping[str, tuple[Path, ...]]
    image_grid: Grid
    rows_reversed: bool

    @property
    def grid(self) -> Grid:
        """About the origin."""
        return self.image_grid

    def slices(self, target: str, reference: str) -> range:
        """All that both have."""
        return range(self.image_grid.shape_kji[0])

    def read(self, slices: slice, *contrasts: str) -> list[np.ndarray]:
        """Magnitude images, float32, the mean over the repetitions."""
        rows = slice(None, None, -1 if self.rows_reversed else 1)
        stacks = ([read_images(path, slices) for path in self.files[contrast]] for contrast in contrasts)
        return [np.asarray(np.mean(images, axis=0), dtype=np.float32)[:, rows] for images in stacks]


def read_images(path: Path, slices: slice) -> np.ndarray:
    """Root-sum-of-squares images (slices, rows, columns) of a file: those it has, else computed from its k-space."""
    with h5py.File(path) as file:
        for name in _IMAGES:
            if name in file:
                return file[name][slices]
        kspace, (_, rows, columns) = file["kspace"][slices], _image_shape(file)
    coils = kspace if kspace.ndim == 4 else kspace[:, None]
    shifted = np.fft.ifftshift(coils, axes=(-2, -1))
    images = np.fft.fftshift(np.fft.ifft2(shifted, norm="ortho"), axes=(-2, -1))
    top, left = (images.shape[-2] - rows) // 2, (images.shape[-1] - columns) // 2
    images = images[..., top : top + rows, left : left + columns]
    return np.sqrt((np.abs(images) ** 2).sum(axis=1)).astype(np.float32)


def find_fastmri(folder: Path, split: str) -> list[Session] | None:
    """The pairs of a split that the lists in a folder name; None when it holds no k-space files.

    Raises:
        InputError: no list, a listed file that is missing, damaged or undersampled, or a pair of two sizes.
    """
    files = _kspace_files(folder)
    if not files:
        return None
    lists = _pairing_lists(folder)
    if not lists:
        raise InputError(
            f"{folder} holds fastMRI files but no pairing list; put a csv file such as singlecoil_train_split_less.csv "
            "there, with the names of reference and target in every row."
        )
    return _listed_sessions(folder, files, lists, split, FASTMRI_ORIGIN)


def find_m4raw(folder: Path, split: str) -> list[Session] | None:
    """The sessions of a split, or the pairs that the lists in a folder name; None when it holds no M4Raw files.

    A list may name one repetition (2022061003_T101) or, without its number, their mean (2022061003_T1).

    Raises:
        InputError: a listed file that is missing, a damaged file, or contrasts of different sizes.
    """
    files = _kspace_files(folder)
    if not files or not all(_M4RAW_NAME.fullmatch(stem) for stem in files):
        return None
    lists = _pairing_lists(folder)
    if lists:
        return _listed_sessions(folder, files, lists, split, M4RAW_ORIGIN)
    splits = Splits(folder)
    sessions: dict[str, list[Path]] = {}
    for stem, path in files.items():
        name = stem.partition("_")[0]
        if splits.of(name, name, path.parent.name) == split:
            sessions.setdefault(name, []).append(path)
    return [
        _session(folder / name, [_acquisition(path) for path in paths], None, M4RAW_ORIGIN)
        for name, paths in sorted(sessions.items())
    ]


def _kspace_files(folder: Path) -> dict[str, Path]:
    """All HDF5 files in a folder and below by name, if the first of them is of k-space."""
    paths = sorted(folder.rglob("*.h5"))
    try:
        with h5py.File(paths[0]) as file:
            if not {"kspace", *_IMAGES} & set(file):
                return {}
    except (IndexError, OSError):
        return {}
    files = {path.stem: path for path in paths}
    for path in paths:
        if files[path.stem] != path:
            raise InputError(f"{path} and {files[path.stem]} have the same name; take one of them out of {folder}.")
    return files


def _pairing_lists(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.csv") if path.name not in SPLIT_FILES)


def _listed_sessions(
    folder: Path, files: Mapping[str, Path], lists: list[Path], split: str, origin: tuple[str, str]
) -> list[Session]:
    splits = Splits(folder)
    sessions: list[Session] = []
    for path in lists:
        if split_in_name(path.stem) not in (split, None):
            continue
        for reference, target in _rows(path):
            references, targets = _named(reference, files, path), _named(target, files, path)
            acquisitions = [_acquisition(file) for file in (*references, *targets)]
            last = acquisitions[-1]
            if splits.of(target, last.subject, path.stem) == split:
                sessions.append(_session(folder / target, acquisitions, last.contrast, origin))
    return sessions


def _rows(path: Path) -> list[tuple[str, str]]:
    """Reference and target of every row, each once and without .h5; file names have digits, a header has none."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [[cell.strip().removesuffix(".h5") for cell in row[:2]] for row in csv.reader(file) if any(row)]
    if rows and not any(character.isdigit() for character in "".join(rows[0])):
        del rows[0]
    for row in rows:
        if len(row) < 2 or not all(row):
            raise InputError(f"{path} has a row without two file names ({','.join(row)}); correct the list.")
    return list(dict.fromkeys((row[0], row[1]) for row in rows))


def _named(name: str, files: Mapping[str, Path], where: Path) -> list[Path]:
    found = [files[name]] if name in files else [files[stem] for stem in files if re.fullmatch(rf"{name}\d\d", stem)]
    if not found:
        raise InputError(
            f"{where} names {name}.h5, which is not in {where.parent} or below; add it or shorten the list."
        )
    return found


def _session(
    path: Path, acquisitions: list[_Acquisition], target: str | None, origin: tuple[str, str]
) -> KspaceSession:
    """One session of all acquisitions; `target` is the only contrast to enhance, None for every one."""
    files: dict[str, tuple[Path, ...]] = {}
    for acquisition in acquisitions:
        files[acquisition.contrast] = (*files.get(acquisition.contrast, ()), acquisition.path)
    last = acquisitions[-1]
    if target is not None and len(files) < 2:
        raise InputError(f"{acquisitions[0].path.name} and {last.path.name} are paired but both are {target}.")
    columns, rows, slices = zip(*(acquisition.shape for acquisition in acquisitions), strict=True)
    if len(set(columns)) > 1 or len(set(rows)) > 1:
        sizes = " and ".join(sorted({f"{r} x {c}" for r, c in zip(rows, columns, strict=True)}))
        raise InputError(f"The images of {path.name} have different sizes ({sizes}); they cannot be paired.")
    return KspaceSession(
        path,
        last.subject,
        tuple(files),
        tuple(files) if target is None else (target,),
        False,
        origin,
        files,
        _display_grid(last.plane, (columns[0], rows[0], min(slices)), last.spacing_mm),
        origin == FASTMRI_ORIGIN,
    )


def _acquisition(path: Path) -> _Acquisition:
    try:
        with h5py.File(path) as file:
            if "mask" in file:
                raise InputError(f"{path.name} is undersampled (a test file); leave it out of the list.")
            (slices, rows, columns), spacing = _image_shape(file), _spacing_mm(file)
            acquisition = str(file.attrs.get("acquisition", ""))
            subject = str(file.attrs.get("patient_id", path.stem))
    except (OSError, KeyError, ValueError, ElementTree.ParseError) as error:
        raise InputError(f"{path.name} is not a whole fastMRI or M4Raw file ({error}); copy it again.") from error
    name = _M4RAW_NAME.fullmatch(path.stem)
    if name:
        subject, contrast = name["session"], name["contrast"]
    else:
        contrast = _ACQUISITIONS.get(acquisition, acquisition or path.stem)
    plane = "coronal" if acquisition.startswith("COR") else "axial"
    return _Acquisition(path, subject, contrast, plane, (columns, rows, slices), spacing)


def _image_shape(file: h5py.File) -> tuple[int, int, int]:
    """Slices, rows and columns of the image: the stored one's, else the header's as far as k-space reaches."""
    for name in _IMAGES:
        if name in file:
            return file[name].shape
    slices, *_, rows, columns = file["kspace"].shape
    size = _recon_space(file, "matrixSize")
    return slices, min(rows, int(size[0])), min(columns, int(size[1]))


def _spacing_mm(file: h5py.File) -> tuple[float, float, float]:
    """Along columns, rows and slices; the header's x is the readout, which runs along rows of the array."""
    field, size = _recon_space(file, "fieldOfView_mm"), _recon_space(file, "matrixSize")
    return field[1] / size[1], field[0] / size[0], field[2] / max(1.0, size[2])


def _recon_space(file: h5py.File, what: str) -> list[float]:
    """x, y and z of a field of the header's first reconSpace."""
    root = ElementTree.fromstring(file["ismrmrd_header"][()])
    texts = [root.findtext(f"{{*}}encoding/{{*}}reconSpace/{{*}}{what}/{{*}}{axis}") for axis in "xyz"]
    if None in texts:
        raise ValueError(f"no {what} in its header")
    return [float(text) for text in texts if text]


def _display_grid(plane: str, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Grid:
    """A grid of columns, rows and slices of a plane, in display order."""
    across, down, through = range(3)
    along_ras = {"axial": (across, down, through), "coronal": (across, through, down)}[plane]
    upright = Grid(
        tuple(shape[axis] for axis in along_ras),  # type: ignore[arg-type]
        np.diag([*(spacing_mm[axis] for axis in along_ras), 1.0]),
    )
    return display_order(upright, PLANES.index(plane)).apply_grid(upright)
