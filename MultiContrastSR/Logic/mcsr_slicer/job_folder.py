"""A job's folder as the panel writes and reads it: volumes as arrays, requests and parts as json."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mcsr.worker_arrays import read_array, write_array
from mcsr.worker_messages import (
    INBOX,
    JOBS,
    REQUEST_FILE,
    ArrayFile,
    Part,
    PartTable,
    PartVolume,
    Request,
    check_part_file,
    read_text,
)


@dataclass(frozen=True, eq=False)
class VolumeData:
    """A volume without its node.

    Args:
        array: (k, j, i), any number type.
        ijkToRas: (4, 4), mm, parent transforms included.
        name: of the node.
    """

    array: np.ndarray
    ijkToRas: np.ndarray
    name: str


@dataclass(frozen=True, eq=False)
class JobRequest:
    """What the worker is asked to do; see `mcsr.worker_messages.Request`.

    Args:
        target: low resolution, or with `simulate` high resolution.
        reference: None: the interpolated target is its own.
        groundTruth: of the target, for scores.
        settings: fields of `mcsr.job.Settings`, for example {"model": "dcamsr-s", "scale": 4, "maps": "all"}.
        kind: "enhance", or "maps" for maps alone of the job that the same volumes and settings describe.
        referenceToTargetRas: (4, 4), RAS mm to RAS mm; the reference lies there and is not registered.
        pointRas: (r, a, s) mm in the world; of kind "maps": the maps of the pixel there, as role "point_map".
        simulate: degrade the target first; it is then the ground truth.
        outputFolder: where files go for the user.
        inputFiles: what the volumes were loaded from, which no output may overwrite.
    """

    target: VolumeData
    reference: VolumeData | None = None
    groundTruth: VolumeData | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "enhance"
    referenceToTargetRas: np.ndarray | None = None
    pointRas: Sequence[float] | None = None
    simulate: bool = False
    outputFolder: str | None = None
    inputFiles: Sequence[str] = ()


@dataclass(frozen=True)
class ResultVolume:
    """A volume that the worker made.

    Args:
        facts: role, name, title, meaning, unit, family, kind, colours and limits; see `PartVolume`.
        folder: of the job, which is there until the job has ended.
    """

    facts: PartVolume
    folder: Path

    @property
    def ijkToRas(self) -> np.ndarray:
        """float64 (4, 4), mm."""
        return np.array(self.facts.ijk_to_ras, dtype=np.float64)

    def readArray(self) -> np.ndarray:
        """The voxels (k, j, i): float32, or the target's own integer type; to be called within `onPart`."""
        return read_array(self.folder, self.facts.file)


@dataclass(frozen=True)
class ResultPart:
    """What a job hands over at one moment.

    Args:
        name: "result" (first), "scores" or "maps".
        volumes: of the part.
        tables: of the part: name, title, columns (lists of equal length by name; None where there is no value).
        report: provenance, as in report.json.
        warnings: sentences for the user, all of the job so far.
    """

    name: str
    volumes: Sequence[ResultVolume]
    tables: Sequence[PartTable]
    report: Mapping[str, Any]
    warnings: Sequence[str]


def makeWorkFolder(folder: Path) -> None:
    """Lay out a new work folder, which no other user can enter."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in (INBOX, JOBS):
        (folder / name).mkdir(exist_ok=True)


def writeJob(workFolder: Path, jobId: str, request: JobRequest) -> Path:
    """Write a job's folder whole, then its name into the inbox; returns the folder, of which nothing stays on errors.

    Raises:
        OSError: full disk, or no folder any more.
        InputError: when the request holds what cannot be handed over.
    """
    folder = workFolder / JOBS / jobId
    try:
        folder.mkdir()
        written = Request(
            id=jobId,
            kind=request.kind,
            target=_written(folder, "target", request.target),
            reference=_writtenIfGiven(folder, "reference", request.reference),
            ground_truth=_writtenIfGiven(folder, "ground_truth", request.groundTruth),
            reference_to_target_ras=_matrix(request.referenceToTargetRas),
            point_ras=None if request.pointRas is None else tuple(float(mm) for mm in request.pointRas),
            simulate=request.simulate,
            settings=dict(request.settings),
            output_folder=request.outputFolder,
            input_files=tuple(request.inputFiles),
        )
        text = written.to_json()
        Request.from_json(text)  # what the worker would refuse is better refused here
        (folder / REQUEST_FILE).write_text(text, encoding="utf-8")
        (workFolder / INBOX / jobId).touch()
    except BaseException:
        removeFolder(folder)
        raise
    return folder


def readPart(folder: Path, fileName: Any) -> ResultPart:
    """A part that the worker wrote into a job's folder.

    Raises:
        InputError: when the file is missing or not what it should be.
    """
    part = Part.from_json(read_text(folder, check_part_file(fileName)))
    volumes = [ResultVolume(facts, folder) for facts in part.volumes]
    return ResultPart(part.name, volumes, part.tables, part.report, part.warnings)


def removeFolder(folder: Path) -> None:
    """Remove a folder with all that is in it, as far as that is possible; links are removed, not followed."""
    if folder.is_symlink():
        folder.unlink(missing_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _written(folder: Path, name: str, volume: VolumeData) -> ArrayFile:
    write_array(folder / f"{name}.npy", volume.array)
    matrix = _matrix(volume.ijkToRas)
    assert matrix is not None
    return ArrayFile(f"{name}.npy", matrix, volume.name)


def _writtenIfGiven(folder: Path, name: str, volume: VolumeData | None) -> ArrayFile | None:
    return None if volume is None else _written(folder, name, volume)


def _matrix(matrix: np.ndarray | None) -> tuple[tuple[float, ...], ...] | None:
    if matrix is None:
        return None
    return tuple(tuple(float(number) for number in row) for row in np.asarray(matrix))
