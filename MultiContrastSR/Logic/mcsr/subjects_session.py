"""What all sources of subjects have in common: a session on one grid, its pairs of contrasts, and its split."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from .errors import InputError
from .geometry import Grid, crop_grid, plane_name
from .volume import Volume

SPLITS = ("train", "val", "test")
SPLIT_FILES = ("splits.json", "splits.csv")


@dataclass(frozen=True, eq=False)
class Session(ABC):
    """The contrasts of one session on one grid, in display order (k runs through the slices), read when asked for.

    Holds no open file, so that it can be sent to other processes.

    Args:
        path: its file or folder, or what the names of its files begin with; the last part names the session.
        subject: who, to keep training and validation apart.
        contrasts: all that it has.
        native: those with samples of their own on this grid; the others were resampled.
        auxiliary: all contrasts were resampled to a common grid at their source, so that none is quite as acquired.
        origin: whom to cite, and the licence of the data.
    """

    path: Path
    subject: str
    contrasts: tuple[str, ...]
    native: tuple[str, ...]
    auxiliary: bool
    origin: tuple[str, str]

    @property
    def name(self) -> str:
        """What users and subject files call it."""
        return self.path.stem

    @property
    @abstractmethod
    def grid(self) -> Grid:
        """Of all contrasts."""

    @abstractmethod
    def slices(self, target: str, reference: str) -> range:
        """Those worth learning from: with signal in both contrasts."""

    @abstractmethod
    def read(self, slices: slice, *contrasts: str) -> list[np.ndarray]:
        """Voxels (k, j, i) of some slices of each contrast, of the type in which they are stored."""


@dataclass(frozen=True, eq=False)
class SubjectPair:
    """A target contrast and a reference contrast of the same session."""

    session: Session
    target: str
    reference: str

    @property
    def path(self) -> Path:
        """That of the session."""
        return self.session.path

    @property
    def subject(self) -> str:
        """Who, to keep training and validation apart."""
        return self.session.subject

    @property
    def auxiliary(self) -> bool:
        """Whether the target was resampled at its source."""
        return self.session.auxiliary

    @property
    def key(self) -> str:
        """For tables: session, target and reference."""
        return f"{self.session.name} {self.target}<-{self.reference}"

    @property
    def native(self) -> bool:
        """Whether the target has samples of its own on the session's grid."""
        return self.target in self.session.native

    @property
    def plane(self) -> str:
        """Anatomical plane of the slices."""
        return plane_name(self.session.grid, 2)

    @property
    def spacing_mm(self) -> float:
        """The larger in-plane spacing, mm."""
        return float(self.session.grid.spacing_ijk_mm[:2].max())

    @cached_property
    def slices(self) -> range:
        """Those worth learning from; found out when first asked for, which may mean reading both contrasts."""
        return self.session.slices(self.target, self.reference)

    def read(self, contrast: str) -> Volume:
        """One contrast of the pair on the pair's slices."""
        (array,) = self.session.read(slice(self.slices.start, self.slices.stop), contrast)
        i, j, _ = self.session.grid.shape_ijk
        grid = crop_grid(self.session.grid, (0, 0, self.slices.start), (i, j, len(self.slices)))
        name = f"{self.session.name}_{contrast}"
        return Volume(array, grid.ijk_to_ras, name=name, source_dtype=str(array.dtype))


class Splits:
    """Who is trained on and who is not, for sources whose files do not say it themselves.

    A `splits.json` ({"train": [names], "val": [names], ...}) or `splits.csv` (name,split) in the folder decides, by
    session or by subject; who is not listed there is left out. Else the name of the pairing list or of the folder
    (`..._train`, `..._val`, `..._test`) does. Else, by a hash of the subject's name, a tenth of the subjects is
    validated on, a tenth kept for tests and the rest trained on: always the same ones, however many there are.
    """

    def __init__(self, folder: Path) -> None:
        files = [folder / name for name in SPLIT_FILES if (folder / name).is_file()]
        if len(files) > 1:
            raise InputError(f"{folder} has both {' and '.join(SPLIT_FILES)}; keep one of them.")
        self._listed = dict(_listed(files[0])) if files else None

    def of(self, session: str, subject: str, named: str = "") -> str | None:
        """The split of a session: None for one that the split file leaves out; `named` is a list's or folder's name."""
        if self._listed is not None:
            return self._listed.get(session, self._listed.get(subject))
        return split_in_name(named) or _split_by_hash(subject)


def split_in_name(name: str) -> str | None:
    """The split that a file or folder is named after, such as singlecoil_train_split_less or multicoil_val."""
    found = re.search(r"(?<![a-z])(train|val|test)", name.lower())
    return found[1] if found else None


def _split_by_hash(subject: str) -> str:
    tenth = int(hashlib.sha256(subject.encode()).hexdigest(), 16) % 10
    return {0: "val", 1: "test"}.get(tenth, "train")


def _listed(path: Path) -> Iterator[tuple[str, str]]:
    try:
        if path.suffix == ".json":
            rows = [(name, split) for split, names in json.loads(path.read_text()).items() for name in names]
        else:
            with path.open(newline="", encoding="utf-8") as file:
                rows = [(row[0].strip(), row[1].strip()) for row in csv.reader(file) if any(row)]
    except (ValueError, AttributeError, TypeError, IndexError) as error:
        raise InputError(
            f'{path} does not list names per split; write {{"train": [names], "val": [names]}}, or as csv name,split.'
        ) from error
    for name, split in rows:
        if split in SPLITS:
            yield name, split
        elif (name, split) != rows[0]:  # the header of a csv
            raise InputError(f"{path} puts {name} into split '{split}'; known are {', '.join(SPLITS)}.")
