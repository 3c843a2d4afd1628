"""What a job made, as parts for the panel: arrays beside a json file that says what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .imageio import complete_file
from .job import DrawnMaps, Result
from .metrics import compare_slices, lit_slices
from .volume import Volume
from .worker_arrays import write_array
from .worker_messages import Part, PartTable, PartVolume

_RESULT = "Result"
_INTENSITY = "intensity of the target"
# By role: title, meaning, colours.
_FACTS = {
    "sr": ("Result", "The target at finer detail.", "grey"),
    "interpolated": ("Interpolated input", "The target on the result's grid, nothing added.", "grey"),
    "residual": ("Residual", "What the result has more (positive) or less than the interpolated input.", "diverging"),
    "error": ("Error", "What the result has more (positive) or less than the ground truth.", "diverging"),
    "registered_reference": ("Reference", "The reference, registered, on the result's grid.", "grey"),
    "simulated_target": ("Simulated input", "The low-resolution target that was made and enhanced.", "grey"),
}
_LABELS = {"result": "Result", "interpolated": "Interpolation (sinc)"}


def write_result_part(folder: Path, result: Result, simulated: Volume | None = None) -> str:
    """The volumes of a result without its maps; returns the name of the part's file.

    Raises:
        OutputError: full disk, or no folder any more.
    """
    volumes = {"sr": result.sr, "interpolated": result.interpolated, "residual": result.residual}
    volumes["registered_reference"] = result.reference
    if result.truth is not None:
        error = result.sr.array_kji - result.truth.array_kji
        volumes["error"] = result.residual.with_array(error, name=f"{result.sr.name} error")
    if simulated is not None:
        volumes["simulated_target"] = simulated
    written = [_written(folder, role, volume, _facts(role, volume)) for role, volume in volumes.items()]
    return _write_part(folder, Part("result", written, (), result.provenance, result.warnings))


def write_scores_part(folder: Path, result: Result) -> str:
    """Scores against the ground truth, of the volume and by slice; returns the name of the part's file."""
    assert result.truth is not None
    methods = {"result": result.sr, "interpolated": result.interpolated}
    scores = {method: asdict(score) for method, score in result.scores.items()}
    whole: dict[str, Sequence[Any]] = {"method": [_LABELS[method] for method in scores]}
    whole |= {name: [_finite(score[name]) for score in scores.values()] for name in ("psnr", "ssim", "nmse")}
    truth = np.moveaxis(result.truth.array_kji, 2 - result.slice_axis, 0)
    by_slice: dict[str, Sequence[Any]] = {"slice": lit_slices(truth).tolist()}
    for method, volume in methods.items():
        found = compare_slices(np.moveaxis(volume.array_kji, 2 - result.slice_axis, 0), truth)
        by_slice |= {f"{name}_{method}": [_finite(v) for v in found[name]] for name in ("psnr", "ssim", "nmse")}
    tables = [
        PartTable("scores", "Scores against the ground truth", whole),
        PartTable("scores_by_slice", "Scores against the ground truth, by slice", by_slice),
    ]
    return _write_part(folder, Part("scores", (), tables, result.provenance, result.warnings))


def write_maps_part(folder: Path, drawn: DrawnMaps | Result, role: str = "map") -> str:
    """Maps ("map", or "point_map" of one pixel) and tables of the network; returns the name of the part's file."""
    facts = drawn.provenance["maps"]
    volumes = [_written(folder, role, volume, {"name": name, **facts[name]}) for name, volume in drawn.maps.items()]
    tables = [PartTable(name, facts[name]["title"], _columns(table)) for name, table in drawn.tables.items()]
    return _write_part(folder, Part("maps", volumes, tables, drawn.provenance, drawn.warnings))


def _facts(role: str, volume: Volume) -> dict[str, Any]:
    title, meaning, colours = _FACTS[role]
    words = {"name": volume.name, "title": title, "meaning": meaning, "unit": _INTENSITY, "family": _RESULT}
    return {**words, "kind": "image", "colours": colours, "limits": (None, None)}


def _written(folder: Path, role: str, volume: Volume, facts: Mapping[str, Any]) -> PartVolume:
    # Names of maps hold dots, those of nodes anything: files are named by what cannot go wrong.
    stem = role if role in _FACTS else f"{role}_{facts['name'].replace('.', '-')}"
    with complete_file(folder / f"{stem}.npy") as partial:
        write_array(partial, volume.stored())
    matrix = tuple(tuple(row) for row in volume.ijk_to_ras.tolist())
    words = {**facts, "limits": tuple(facts["limits"])}
    return PartVolume(role=role, **words, file=f"{stem}.npy", ijk_to_ras=matrix)


def _write_part(folder: Path, part: Part) -> str:
    name = f"{part.name}.json"
    with complete_file(folder / name) as partial:
        partial.write_text(part.to_json(), encoding="utf-8")
    return name


def _columns(table: np.ndarray) -> dict[str, list[Any]]:
    """One row a slice; further axes become columns named by their indices, "0", "1", ... or "0,0", "0,1", ..."""
    columns: dict[str, list[Any]] = {"slice": list(range(len(table)))}
    for index, values in zip(np.ndindex(*table.shape[1:]), table.reshape(len(table), -1).T, strict=True):
        columns[",".join(map(str, index)) or "value"] = [_finite(value) for value in values]
    return columns


def _finite(value: Any) -> float | None:
    """Json has no infinity (equal images) and no NaN (slices without signal)."""
    return float(value) if np.isfinite(value) else None
