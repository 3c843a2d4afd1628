"""HDF5 subject files: all contrasts of one session on one grid, in LPS order.

Each contrast is a dataset [k, j, i]; the file's attributes are `contrasts`, `affine` (index i, j, k to RAS mm),
`split`, `subject` and `brain_slices` (first, last); a dataset's are `role` and, where resampled, `covered_slices`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from .errors import InputError
from .volume import Volume

NATIVE_ROLE = "native samples"


@dataclass(frozen=True)
class SubjectPair:
    """A target contrast with native samples and a reference contrast of the same session.

    Args:
        path: the file.
        subject: who, to keep training and validation apart.
        target: name of the dataset.
        reference: name of the dataset.
        slices: those with brain that the reference covers.
        auxiliary: all contrasts of the file are native, that is, it was resampled at its source.
    """

    path: Path
    subject: str
    target: str
    reference: str
    slices: range
    auxiliary: bool

    @property
    def key(self) -> str:
        """For tables: session, target and reference."""
        return f"{self.path.stem} {self.target}<-{self.reference}"

    def read(self, contrast: str) -> Volume:
        """One contrast of the pair on the pair's slices."""
        with h5py.File(self.path) as file:
            affine = np.array(file.attrs["affine"], dtype=np.float64)
            array = file[contrast][()]
        volume = Volume(array, affine, name=f"{self.path.stem}_{contrast}", source_dtype=str(array.dtype))
        i, j, _ = volume.grid.shape_ijk
        return volume.cropped((0, 0, self.slices.start), (i, j, len(self.slices)))


def find_subject_pairs(folder: Path, split: str) -> list[SubjectPair]:
    """All pairs of the HDF5 files of a folder that belong to a split.

    Raises:
        InputError: when there is none.
    """
    pairs = [pair for path in sorted(Path(folder).glob("*.h5")) for pair in _pairs(path, split)]
    if not pairs:
        raise InputError(f"{folder} holds no HDF5 subject file of split '{split}' with two contrasts.")
    return pairs


def _pairs(path: Path, split: str) -> list[SubjectPair]:
    try:
        with h5py.File(path) as file:
            if file.attrs.get("split") != split:
                return []
            names = str(file.attrs["contrasts"]).split(",")
            first, last = (int(n) for n in file.attrs["brain_slices"])
            covered = {name: file[name].attrs.get("covered_slices", (first, last)) for name in names}
            targets = [name for name in names if file[name].attrs["role"] == NATIVE_ROLE]
            subject = str(file.attrs["subject"])
    except (OSError, KeyError) as error:
        raise InputError(f"{path.name} is not a whole HDF5 subject file; move it out of the folder.") from error
    pairs = []
    for target in targets:
        for reference in names:
            if reference != target:
                slices = range(max(first, int(covered[reference][0])), min(last, int(covered[reference][1])) + 1)
                pairs.append(SubjectPair(path, subject, target, reference, slices, len(targets) > 1))
    return pairs
