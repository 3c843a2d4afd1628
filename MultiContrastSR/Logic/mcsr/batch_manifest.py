"""The manifest of a batch: a CSV file with one row per subject; all its faults are found before any work."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, get_args, get_type_hints

from .checks import check_scale
from .errors import InputError, McsrError
from .geometry import PLANES
from .inference import DEVICES, PRECISIONS
from .job import Settings
from .maps import choose_views
from .memory import parse_bytes
from .networks import create_network, network_class
from .weights import find_weights

REQUIRED = ("subject", "target", "reference")
FILES = ("target", "reference", "truth")
SETTINGS = tuple(field.name for field in fields(Settings))

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,98}")
# Names that Windows keeps for devices, whatever the extension; and those of the batch's own files.
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|batch\.csv|overview.*\.(html|png)", re.IGNORECASE)
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "plane": ("auto", *PLANES),
    "registration": ("rigid", "none"),
    "device": DEVICES,
    "precision": PRECISIONS,
}
_TRUTH_VALUES = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_MOST_LINES = 5


@dataclass(frozen=True)
class Subject:
    """One row of a manifest.

    Args:
        name: of the subject and of its folder.
        target: low-resolution volume, absolute like the others.
        reference: None: the target helps itself.
        truth: the original high-resolution target, where there is one.
        settings: the command's, with what the row says otherwise.
    """

    name: str
    target: Path
    reference: Path | None
    truth: Path | None
    settings: Settings

    @property
    def inputs(self) -> dict[str, Path]:
        """The files (or DICOM folders) there are, by the column that names them."""
        files = {"target": self.target, "reference": self.reference, "truth": self.truth}
        return {role: path for role, path in files.items() if path is not None}


def read_manifest(path: Path, settings: Settings) -> list[Subject]:
    """Read and check a manifest.

    Args:
        path: of a CSV file (UTF-8, commas) whose header names `REQUIRED` and any of truth and the fields of `Settings`;
            files are relative to its folder. An empty cell means: none, or the command's.
        settings: of the command.

    Raises:
        InputError: with all faults, each with its line.
    """
    faults = _Faults(path)
    subjects: list[Subject | None] = []
    lines_of: dict[str, int] = {}
    for line, row in _read_rows(path, faults):
        subject = _subject(row, path.absolute().parent, settings, partial(faults.add, line))
        earlier = lines_of.setdefault(row["subject"].casefold(), line)
        if earlier != line:
            faults.add(line, f"the subject '{row['subject']}' stands in line {earlier} already; give it another name")
        subjects.append(subject)
    faults.raise_any()
    return [subject for subject in subjects if subject is not None]


@cache
def weights_digest(model: str, scale: int, file: Path | None) -> str | None:
    """SHA-256 of the weights that these settings choose, None for a baseline; see `weights.find_weights`."""
    return find_weights(model, scale, file).sha256 if network_class(model).uses_reference else None


class _Faults:
    """Sentences by line; the same sentence of many lines is told once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[str, list[int]] = {}

    def add(self, line: int, fault: str) -> None:
        self._lines.setdefault(fault.rstrip("."), []).append(line)

    def raise_any(self) -> None:
        told = [f"{_lines(lines)}: {fault}." for fault, lines in self._lines.items()]
        if len(told) == 1:
            raise InputError(f"{self._path.name}, {told[0]}")
        if told:
            raise InputError("\n  ".join([f"{self._path.name} has {len(told)} faults:", *told]))


def _lines(lines: list[int]) -> str:
    if len(lines) == 1:
        return f"line {lines[0]}"
    more = f" and {len(lines) - _MOST_LINES} more" if len(lines) > _MOST_LINES else ""
    return f"lines {', '.join(map(str, lines[:_MOST_LINES]))}{more}"


def _read_rows(path: Path, faults: _Faults) -> list[tuple[int, dict[str, str]]]:
    """Each row below the header that is not empty, with its line; what does not fit the header is a fault."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            found = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not written in UTF-8; save it as CSV in UTF-8.") from error
    except csv.Error as error:
        raise InputError(f"{path.name}, line {reader.line_num}: this is no CSV ({error}); save it again.") from error
    except OSError as error:
        raise InputError(f"The manifest {path} cannot be read ({error.strerror}); check the path.") from error
    found = [(line, cells) for line, cells in found if any(cells)]
    if not found:
        raise InputError(f"{path.name} is empty; its first line must be: {','.join(REQUIRED)}")
    (line, header), *rest = found
    _check_header(header, line, faults)
    for number, cells in rest:
        if len(cells) != len(header):
            faults.add(number, f"the header has {len(header)} columns, this line {len(cells)}; quote cells with commas")
    if not rest:
        faults.add(line, "there is no subject below the header; add one line for each")
    return [(n, dict(zip(header, cells, strict=True))) for n, cells in rest if len(cells) == len(header)]


def _check_header(header: list[str], line: int, faults: _Faults) -> None:
    known = (*REQUIRED, "truth", *SETTINGS)
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        faults.add(line, "the columns must be separated by commas; save it as CSV with commas")
        faults.raise_any()
    for name in dict.fromkeys(header):
        if name not in known:
            faults.add(line, f"there is no column '{name}'; known are {', '.join(known)}")
        elif header.count(name) > 1:
            faults.add(line, f"the column '{name}' stands there twice; leave one")
    for name in REQUIRED:
        if name not in header:
            faults.add(line, f"the column '{name}' is missing; the header begins with {','.join(REQUIRED)}")
    faults.raise_any()


def _subject(row: Mapping[str, str], folder: Path, settings: Settings, fault: Callable[[str], None]) -> Subject | None:
    name, ready = row["subject"], True
    if not _NAME.fullmatch(name) or name.endswith("."):
        ready = False
        fault(
            f"the subject '{name}' cannot name a folder; use up to 99 letters (a-z), digits, '.', '-' and '_', "
            "with a letter or digit first"
        )
    elif _RESERVED.fullmatch(name):
        ready = False
        fault(f"the subject's name '{name}' is reserved; choose another")
    files = {role: folder / row[role] for role in FILES if row.get(role)}
    if "target" not in files:
        ready = False
        fault("the target is missing; name its file")
    for role, path in files.items():
        if not path.exists():
            ready = False
            fault(f"the {role} {row[role]} does not exist; check the path")
    try:
        own = replace(settings, **_own_settings(row, folder))
        _check(own)
    except McsrError as error:
        fault(str(error))
        return None
    return Subject(name, files["target"], files.get("reference"), files.get("truth"), own) if ready else None


def _own_settings(row: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """What a row says otherwise than the command."""
    types = get_type_hints(Settings)
    return {name: _value(name, row[name], types[name], folder) for name in SETTINGS if row.get(name)}


def _value(name: str, cell: str, kind: Any, folder: Path) -> Any:
    kind = next((inner for inner in get_args(kind) if inner is not type(None)), kind)  # of Path | None: Path
    if kind is Path:
        return folder / cell
    if name == "memory":
        return parse_bytes(cell)
    try:
        return _TRUTH_VALUES[cell.lower()] if kind is bool else kind(cell)
    except (KeyError, ValueError) as error:
        wanted = "yes or no" if kind is bool else "a number"
        raise InputError(f"the {name} '{cell}' is not {wanted}; correct it") from error


@cache
def _check(settings: Settings) -> None:
    """All that can be found out without an image."""
    check_scale(settings.scale)
    for name, known in _CHOICES.items():
        if getattr(settings, name) not in known:
            raise InputError(f"the {name} '{getattr(settings, name)}' is not known; known are {', '.join(known)}")
    weights_digest(settings.model, settings.scale, settings.weights)
    if settings.maps != "none":
        choose_views(create_network(settings.model, scale=settings.scale), settings.maps)
