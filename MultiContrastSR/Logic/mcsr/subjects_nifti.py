"""IXI and BraTS: folders of NIfTI images, as published.

IXI has one folder per contrast (IXI-T1/IXI002-Guys-0828-T1.nii.gz, IXI-T2/..., IXI-PD/...). T2 and PD share a grid; T1
is brought onto it by what its header says. BraTS has one folder per session
(BraTS20_Training_001/BraTS20_Training_001_t1.nii.gz, _t1ce, _t2, _flair; since 2023 BraTS-GLI-00000-000-t1n.nii.gz,
-t1c, -t2w, -t2f), all on one grid. Only names count, not how the folders are nested.

A compressed image can only be read and resampled as a whole: each process keeps the last few, and for long trainings
the sessions are better written as HDF5 subject files once (`prepare_subjects`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from .errors import InputError
from .geometry import Grid, display_order, same_space, slice_axis
from .imageio import read_volume
from .intensity import foreground
from .resampling import resample
from .subjects_session import Session, Splits
from .volume import Volume

IXI_ORIGIN = ("IXI data set, brain-development.org.", "CC BY-SA 3.0")
BRATS_ORIGIN = ("Menze et al., IEEE TMI 2015; Bakas et al., Scientific Data 2017.", "terms of the BraTS challenge")

CACHED_VOLUMES = 4
MIN_SIGNAL = 0.05
"""Slices are used from the first to the last with signal in this fraction of their area."""

_IXI_NAME = re.compile(r"(?P<session>IXI\d+-\w+-\d+)-(?P<contrast>T1|T2|PD)\.nii(\.gz)?")
_BRATS_NAME = re.compile(r"(?P<session>BraTS.*)[-_](?P<contrast>t1|t1n|t1ce|t1c|t2|t2w|flair|t2f)\.nii(\.gz)?", re.I)
_BRATS_CONTRASTS = {
    "t1": "T1",
    "t1n": "T1",
    "t1ce": "T1Gd",
    "t1c": "T1Gd",
    "t2": "T2",
    "t2w": "T2",
    "flair": "FLAIR",
    "t2f": "FLAIR",
}
_SAME_PLACE = 0.05  # of a voxel


@dataclass(frozen=True, eq=False)
class NiftiSession(Session):
    """One file for each contrast; the grid is that of the first native one, in display order."""

    files: Mapping[str, Path]

    @property
    def grid(self) -> Grid:
        """Reads the first native contrast."""
        return self._volume(self.native[0]).grid

    def slices(self, target: str, reference: str) -> range:
        """Those with signal in both contrasts."""
        first, stop = zip(*(_signal(self._volume(name)) for name in (target, reference)), strict=True)
        if max(first) >= min(stop):
            raise InputError(f"{target} and {reference} of {self.path.name} have no slice in common; leave it out.")
        return range(max(first), min(stop))

    def read(self, slices: slice, *contrasts: str) -> list[np.ndarray]:
        """Voxels of the native contrasts, of the others after cubic resampling; all float32."""
        return [self._volume(contrast).array_kji[slices] for contrast in contrasts]

    def _volume(self, contrast: str) -> Volume:
        volume, resampled = _on_grid_of(self.files[contrast], self.files[self.native[0]])
        if resampled and contrast in self.native:
            raise InputError(
                f"{self.files[contrast].name} is not on the grid of {self.files[self.native[0]].name}; leave this "
                "session out."
            )
        return volume


def find_ixi(folder: Path, split: str) -> list[Session] | None:
    """The sessions of a split with a T2 or PD and one more contrast; None when a folder holds no IXI files."""
    return _sessions(folder, split, _IXI_NAME, IXI_ORIGIN)


def find_brats(folder: Path, split: str) -> list[Session] | None:
    """The sessions of a split with at least two contrasts; None when a folder holds no BraTS files."""
    return _sessions(folder, split, _BRATS_NAME, BRATS_ORIGIN)


def _sessions(folder: Path, split: str, pattern: re.Pattern[str], origin: tuple[str, str]) -> list[Session] | None:
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.rglob("*.nii*")):
        name = pattern.fullmatch(path.name)
        if name:
            contrast = _BRATS_CONTRASTS.get(name["contrast"].lower(), name["contrast"])
            files = found.setdefault(name["session"], {})
            if contrast in files:
                raise InputError(f"{path} and {files[contrast]} are the same contrast; take one of them out.")
            files[contrast] = path
    if not found:
        return None
    splits = Splits(folder)
    ixi = pattern is _IXI_NAME
    sessions: list[Session] = []
    for session, files in sorted(found.items()):
        # IXI-T1 was acquired on another grid; BraTS was resampled to one grid at its source.
        native = tuple(name for name in ("T2", "PD") if name in files) if ixi else tuple(files)
        subject = session.partition("-")[0] if ixi else _brats_subject(session)
        if native and splits.of(session, subject) == split:
            sessions.append(NiftiSession(folder / session, subject, tuple(files), native, not ixi, origin, files))
    return sessions


def _brats_subject(session: str) -> str:
    """BraTS-GLI-00000-000 is the first time point of subject BraTS-GLI-00000."""
    return session.rpartition("-")[0] if re.fullmatch(r"BraTS-\w+-\d+-\d+", session, re.I) else session


@lru_cache(maxsize=CACHED_VOLUMES)
def _on_grid_of(path: Path, other: Path) -> tuple[Volume, bool]:
    """An image on the grid of another, in display order, and whether it had to be resampled for it."""
    volume = read_volume(path)
    stored = volume.grid
    upright = volume.reordered(display_order(stored, slice_axis(stored)))
    if path == other:
        return upright, False
    grid = _on_grid_of(other, other)[0].grid
    if same_space(upright.grid, grid, _SAME_PLACE * float(grid.spacing_ijk_mm.min())):
        return upright, False
    return resample(volume, grid), True


def _signal(volume: Volume) -> tuple[int, int]:
    """First slice with signal and the one after the last."""
    lit = np.flatnonzero(foreground(volume.array_kji).mean(axis=(1, 2)) >= MIN_SIGNAL)
    return (int(lit[0]), int(lit[-1]) + 1) if lit.size else (0, 0)
