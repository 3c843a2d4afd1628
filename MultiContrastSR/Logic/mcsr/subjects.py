"""Subjects to train and evaluate on: the one place that knows what lies in a folder.

HDF5 subject files, fastMRI, M4Raw, IXI and BraTS are recognised by what they consist of; each has a module of its own
(`subjects_*.py`), which says how its folder must look.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from .errors import InputError
from .subjects_hdf5 import find_subject_files, write_subject_file
from .subjects_kspace import find_fastmri, find_m4raw
from .subjects_nifti import find_brats, find_ixi
from .subjects_session import SPLITS, Session, SubjectPair

__all__ = ["Session", "SubjectPair", "find_subject_pairs", "prepare_subjects"]

# The first that finds files of its kind is what the folder holds. HDF5 subject files come after those that are told by
# their content or names, so that whatever else ends in .h5 is refused as a damaged subject file.
_SOURCES: dict[str, Callable[[Path, str], list[Session] | None]] = {
    "M4Raw session": find_m4raw,
    "fastMRI pair": find_fastmri,
    "HDF5 subject file": find_subject_files,
    "IXI session": find_ixi,
    "BraTS session": find_brats,
}


def find_subject_pairs(
    folder: Path, split: str, *, contrasts: Collection[str] = (), resampled_targets: bool = False
) -> list[SubjectPair]:
    """All pairs of contrasts of a folder's sessions that belong to a split.

    Args:
        folder: of one of the five kinds.
        split: "train", "val" or "test".
        contrasts: only these pairs, such as "T2<-T1"; all by default.
        resampled_targets: also pairs whose target has no samples of its own on the session's grid.

    Raises:
        InputError: when there is none, or something is missing or damaged.
    """
    kind, sessions = _sessions(Path(folder), split)
    pairs = [
        SubjectPair(session, target, reference)
        for session in sessions
        for target in session.contrasts
        if resampled_targets or target in session.native
        for reference in session.contrasts
        if reference != target and (not contrasts or f"{target}<-{reference}" in contrasts)
    ]
    if not pairs:
        wanted = " or ".join(contrasts) or "two contrasts"
        raise InputError(f"{folder} holds no {kind} of split '{split}' with {wanted}.")
    return pairs


def prepare_subjects(data: Path, folder: Path, *, started: Callable[[str], None] = lambda session: None) -> list[Path]:
    """Write all sessions of a data set as HDF5 subject files, which are quick to read slice by slice.

    Args:
        data: of any kind.
        folder: another one that exists; what is in it already is kept, so that an interrupted run can go on.
        started: told the name of every session to be written.

    Returns:
        All subject files of the data set.
    """
    if folder.resolve() == data.resolve():
        raise InputError(f"{folder} holds the data themselves; choose another folder for the subject files.")
    files = []
    for split in SPLITS:
        for session in _sessions(data, split)[1]:
            path = folder / f"{session.name}.h5"
            if not path.exists():
                started(session.name)
                write_subject_file(session, split, folder)
            files.append(path)
    return files


def _sessions(folder: Path, split: str) -> tuple[str, list[Session]]:
    """What kind of sessions a folder holds, and those of a split."""
    for kind, find in _SOURCES.items():
        sessions = find(folder, split)
        if sessions is not None:
            return kind, sessions
    raise InputError(
        f"{folder} holds nothing to train or evaluate on; it should hold HDF5 subject files, or fastMRI, M4Raw, IXI or "
        "BraTS as published."
    )
