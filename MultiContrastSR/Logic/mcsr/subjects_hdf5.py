"""HDF5 subject files: all contrasts of one session on one grid, in LPS order.

Each contrast is a dataset [k, j, i]; the file's attributes are `contrasts`, `affine` (index i, j, k to RAS mm),
`split`, `subject` and `brain_slices` (first, last), and where it is not to be told from the roles `auxiliary`; a
dataset's are `role` and, where not all slices have signal, `covered_slices`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from .errors import InputError
from .geometry import Grid
from .imageio import complete_file
from .subjects_session import Session

NATIVE_ROLE = "native samples"


@dataclass(frozen=True, eq=False)
class SubjectFile(Session):
    """A session in one HDF5 file; `covered` holds first and last slice with brain of each contrast."""

    covered: Mapping[str, tuple[int, int]]
    stored_grid: Grid

    @property
    def grid(self) -> Grid:
        """As the file's attributes say."""
        return self.stored_grid

    def slices(self, target: str, reference: str) -> range:
        """Those with brain that the reference covers."""
        first, last = zip(self.covered[target], self.covered[reference], strict=True)
        return range(max(first), min(last) + 1)

    def read(self, slices: slice, *contrasts: str) -> list[np.ndarray]:
        """Reads these slices and no others."""
        with h5py.File(self.path) as file:
            return [file[contrast][slices] for contrast in contrasts]


def find_subject_files(folder: Path, split: str) -> list[Session] | None:
    """The subject files of a split in a folder (not below it); None when it holds no HDF5 file.

    Raises:
        InputError: when one of the files is damaged or something else.
    """
    paths = sorted(folder.glob("*.h5"))
    return [session for path in paths for session in _session(path, split)] if paths else None


def write_subject_file(session: Session, split: str, folder: Path) -> Path:
    """Write a session of any source as a subject file, with the voxels that the source gives.

    Returns:
        The file, named after the session; it appears when it is complete.
    """
    path = folder / f"{session.name}.h5"
    signal = {name: session.slices(name, name) for name in session.contrasts}
    citation, licence = session.origin
    with complete_file(path) as partial, h5py.File(partial, "w") as file:
        file.attrs.update(
            contrasts=",".join(session.contrasts),
            split=split,
            subject=session.subject,
            affine=session.grid.ijk_to_ras,
            spacing=session.grid.spacing_ijk_mm,
            brain_slices=(min(s.start for s in signal.values()), max(s.stop for s in signal.values()) - 1),
            auxiliary=session.auxiliary,
            citation=citation,
            licence=licence,
        )
        for name in session.contrasts:
            voxels = _compact(session.read(slice(None), name)[0])
            chunks = (1, *voxels.shape[1:])
            dataset = file.create_dataset(name, data=voxels, chunks=chunks, compression="gzip", shuffle=True)
            dataset.attrs["role"] = NATIVE_ROLE if name in session.native else "reference"
            dataset.attrs["covered_slices"] = signal[name].start, signal[name].stop - 1
    return path


def _session(path: Path, split: str) -> list[Session]:
    try:
        with h5py.File(path) as file:
            if file.attrs.get("split") != split:
                return []
            names = tuple(str(file.attrs["contrasts"]).split(","))
            first, last = (int(n) for n in file.attrs["brain_slices"])
            covered = {}
            for name in names:
                start, stop = file[name].attrs.get("covered_slices", (first, last))
                covered[name] = max(first, int(start)), min(last, int(stop))
            native = tuple(name for name in names if file[name].attrs["role"] == NATIVE_ROLE)
            grid = Grid(file[names[0]].shape[::-1], file.attrs["affine"])
            auxiliary = bool(file.attrs.get("auxiliary", len(native) > 1))
            origin = str(file.attrs.get("citation", "no citation given")), str(file.attrs.get("licence", "unknown"))
            subject = str(file.attrs["subject"])
    except (OSError, KeyError) as error:
        raise InputError(f"{path.name} is not a whole HDF5 subject file; move it out of the folder.") from error
    return [SubjectFile(path, subject, names, native, auxiliary, origin, covered, grid)]


def _compact(voxels: np.ndarray) -> np.ndarray:
    """The same values as 16-bit integers where that loses nothing: quicker to read and half the size."""
    for dtype in (np.uint16, np.int16):
        limits = np.iinfo(dtype)
        if limits.min <= voxels.min() and voxels.max() <= limits.max and np.array_equal(voxels, np.rint(voxels)):
            return voxels.astype(dtype)
    return voxels
