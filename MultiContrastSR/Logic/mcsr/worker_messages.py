"""What the panel and the worker say to each other: events as lines, requests and parts as json beside arrays.

Standard library only: both sides load it. All that is read is checked, since other programs can write to a folder for
temporary files: nothing is followed out of a job's folder, and what is odd is refused with a sentence.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from .errors import InputError
from .worker_records import FORMAT, Record, is_number, is_path, strict_json

PREFIX = "@mcsr "
"""Begins a line that is an event; every other line is log text."""

EVENTS = ("ready", "accepted", "progress", "part", "done", "cancelled", "error", "idle", "stopping")
KINDS = ("enhance", "maps")
PARTS = ("result", "scores", "maps")
MAP_KINDS = ("image", "labels", "features", "displacement")
MAP_COLOURS = ("grey", "sequential", "diverging", "wheel", "labels")
ROLES = ("sr", "interpolated", "residual", "error", "registered_reference", "simulated_target", "map", "point_map")

INBOX = "inbox"
"""A file here, named like a job, says that the job's folder is complete."""

JOBS = "jobs"
REQUEST_FILE = "request.json"
CANCEL_FLAG = "cancel"
STOP_FLAG = "stop"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_ARRAY_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,120}\.npy")
_PART_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,120}\.json")
_MOST_JSON_BYTES = 8 << 20
_LONGEST_LINE = 1 << 20
_LONGEST_CELL = 400
_MOST_OF_INT = 2**31

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class ArrayFile:
    """A volume of a request.

    Args:
        file: name of the .npy file (k, j, i) in the job's folder.
        ijk_to_ras: 4 x 4, mm.
        name: what the user calls it.
    """

    file: str
    ijk_to_ras: Matrix
    name: str


@dataclass(frozen=True)
class Request:
    """A job, as request.json tells it.

    Args:
        id: name of the job's folder.
        kind: "enhance"; "maps" for maps alone, of the job that the same volumes and settings describe.
        target: low resolution, or with `simulate` high resolution.
        reference: None: the interpolated target is its own.
        ground_truth: of the target, for scores.
        reference_to_target_ras: where the reference lies (RAS mm to RAS mm); None: it is registered as settings say.
        point_ras: (r, a, s) mm; of kind "maps", the maps of the pixel there are asked for, and of no other.
        simulate: degrade the target first; it is then the ground truth.
        settings: fields of `mcsr.job.Settings`; those left out have their defaults.
        output_folder: where result.h5 and so on go for the user; None: nowhere.
        input_files: what the volumes were loaded from, which no output may overwrite.
    """

    id: str
    kind: str
    target: ArrayFile
    reference: ArrayFile | None = None
    ground_truth: ArrayFile | None = None
    reference_to_target_ras: Matrix | None = None
    point_ras: tuple[float, ...] | None = None
    simulate: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    output_folder: str | None = None
    input_files: Sequence[str] = ()

    def to_json(self) -> str:
        """For request.json."""
        return json.dumps({"format": FORMAT, **asdict(self)}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Checked.

        Raises:
            InputError: naming the entry that is missing or odd.
        """
        record = Record(text, "The request")
        record.holds_only(cls, "format")
        kind, point = record.one_of("kind", KINDS), record.point("point_ras")
        if point is not None and kind != "maps":
            raise record.odd("point_ras")
        return cls(
            id=record.matching("id", _ID),
            kind=kind,
            target=_array_file(record.inner("target")),
            reference=_array_file_or_none(record, "reference"),
            ground_truth=_array_file_or_none(record, "ground_truth"),
            reference_to_target_ras=record.matrix("reference_to_target_ras", optional=True),
            point_ras=point,
            simulate=record.of_type("simulate", bool, False),
            settings=record.of_type("settings", dict, {}),
            output_folder=record.path("output_folder"),
            input_files=tuple(record.strings("input_files", is_path)),
        )


@dataclass(frozen=True)
class PartVolume:
    """A volume of a part; see `mcsr.networks.MapSpec` for kind, colours and limits.

    Args:
        role: one of `ROLES`.
        name: of the map, or of the volume as the engine names it; unique in a part.
        title: a few words for a list.
        meaning: one sentence for a caption.
        unit: of the values, empty where they have none.
        family: heading under which a list shows it.
        kind: "image", "labels", "features" or "displacement".
        colours: "grey", "sequential", "diverging" (about 0), "wheel" or "labels".
        limits: natural range of the values; None at a side where the data decide.
        file: .npy (k, j, i) in the job's folder.
        ijk_to_ras: 4 x 4, mm.
    """

    role: str
    name: str
    title: str
    meaning: str
    unit: str
    family: str
    kind: str
    colours: str
    limits: tuple[float | None, float | None]
    file: str
    ijk_to_ras: Matrix


@dataclass(frozen=True)
class PartTable:
    """A table: columns of equal length by name; None where there is no value."""

    name: str
    title: str
    columns: Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Part:
    """What a job hands over at one moment.

    Args:
        name: one of `PARTS`.
        volumes: of the part.
        tables: of the part.
        report: the provenance, as in report.json.
        warnings: sentences for the user, all of the job so far.
    """

    name: str
    volumes: Sequence[PartVolume] = ()
    tables: Sequence[PartTable] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    def to_json(self) -> str:
        """For the part's file."""
        return json.dumps({"format": FORMAT, **asdict(self)}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Part:
        """Checked.

        Raises:
            InputError: naming the entry that is missing or odd.
        """
        record = Record(text, "The result")
        record.holds_only(cls, "format")
        return cls(
            name=record.one_of("name", PARTS),
            volumes=tuple(_part_volume(inner) for inner in record.inners("volumes")),
            tables=tuple(_part_table(inner) for inner in record.inners("tables")),
            report=record.of_type("report", dict, {}),
            warnings=tuple(record.strings("warnings")),
        )


def event_line(event: str, **fields: Any) -> str:
    """An event as one line of ASCII, without its newline."""
    if event not in EVENTS:
        raise ValueError(f"unknown event '{event}'")
    return PREFIX + json.dumps({"event": event, **fields}, allow_nan=False)


def read_event(line: str) -> dict[str, Any] | None:
    """The event that a line tells, or None where it is log text, half an event, or one with odd fields."""
    if not line.startswith(PREFIX) or len(line) > _LONGEST_LINE:
        return None
    try:
        record = strict_json(line[len(PREFIX) :])
    except ValueError:
        return None
    if not isinstance(record, dict) or record.get("event") not in EVENTS:
        return None
    return record if all(is_usable(record.get(key)) for key, is_usable in _FIELDS.items()) else None


def is_job_id(name: str) -> bool:
    """Whether a file in the inbox can be a job's."""
    return _ID.fullmatch(name) is not None and name != STOP_FLAG


def check_part_file(name: Any) -> str:
    """The name of a part's file, which an event tells.

    Raises:
        InputError: where it is no plain name.
    """
    if not isinstance(name, str) or not _PART_FILE.fullmatch(name):
        raise InputError("The worker named a file that cannot be a part of the result; restart Slicer.")
    return name


def open_plain(folder: Path, name: str) -> BinaryIO:
    """Open a file of a folder for reading: a regular file right there, no link, no pipe.

    Raises:
        InputError: where it is missing or something else.
    """
    path = folder / name
    try:
        is_folder, is_file = stat.S_ISDIR(folder.lstat().st_mode), stat.S_ISREG(path.lstat().st_mode)
    except OSError as error:
        raise InputError(f"The file {name} of the job is missing ({error.strerror}); start the job again.") from error
    if not (is_folder and is_file and Path(name).name == name):
        raise InputError(f"The file {name} of the job is no plain file, so it was not read; start the job again.")
    try:
        # Between the look above and here a link could have taken its place.
        return os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)), "rb")
    except OSError as error:
        raise InputError(f"The file {name} of the job cannot be read ({error.strerror}); start it again.") from error


def read_text(folder: Path, name: str) -> str:
    """A json file of a job, not parsed yet; refused (`InputError`) where it is no plain file, too large, no UTF-8."""
    with open_plain(folder, name) as file:
        content = file.read(_MOST_JSON_BYTES + 1)
    if len(content) > _MOST_JSON_BYTES:
        raise InputError(f"The file {name} of the job is too large for what it should hold; start the job again.")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"The file {name} of the job is damaged; start the job again.") from error


def _is_text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_cell(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST_CELL
    return value is None or isinstance(value, float) or (type(value) is int and abs(value) < _MOST_OF_INT)


# What the panel computes with; other fields are texts to it.
_FIELDS: dict[str, Callable[[Any], bool]] = {
    "job": _is_text_or_none,
    "version": _is_text_or_none,
    "stage": _is_text_or_none,
    "pid": lambda value: value is None or (type(value) is int and 0 <= value < _MOST_OF_INT),
    "fraction": lambda value: value is None or (is_number(value) and 0 <= value <= 1),
    "remaining_s": lambda value: value is None or (is_number(value) and value >= 0),
}


def _array_file(record: Record) -> ArrayFile:
    record.holds_only(ArrayFile)
    return ArrayFile(record.matching("file", _ARRAY_FILE), record.matrix("ijk_to_ras"), record.words("name"))


def _array_file_or_none(record: Record, key: str) -> ArrayFile | None:
    return None if record.entries.get(key) is None else _array_file(record.inner(key))


def _part_volume(record: Record) -> PartVolume:
    record.holds_only(PartVolume)
    return PartVolume(
        role=record.one_of("role", ROLES),
        **{key: record.words(key) for key in ("name", "title", "unit", "family")},
        meaning=record.of_type("meaning", str, ""),
        kind=record.one_of("kind", MAP_KINDS),
        colours=record.one_of("colours", MAP_COLOURS),
        limits=record.limits("limits"),
        file=record.matching("file", _ARRAY_FILE),
        ijk_to_ras=record.grid("ijk_to_ras"),
    )


def _part_table(record: Record) -> PartTable:
    record.holds_only(PartTable)
    columns = record.of_type("columns", dict, {})
    lists = [column for column in columns.values() if isinstance(column, list) and all(map(_is_cell, column))]
    if len(lists) < len(columns) or len({len(column) for column in lists}) > 1:
        raise record.odd("columns")
    return PartTable(record.words("name"), record.words("title"), columns)
