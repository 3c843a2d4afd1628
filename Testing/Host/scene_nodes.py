"""What tests put into a scene: volumes, transforms, and parts of a result as the worker writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import slicer
import slicer.util
from mcsr.geometry import Grid, refine_grid
from mcsr.worker_messages import PartTable, PartVolume
from mcsr_slicer.job_folder import ResultPart, ResultVolume
from mcsr_slicer.volumes import setVolume, worldGrid

SCALE = 2
REPORT = {
    "software": "MultiContrastSR 0.0",
    "notice": "Research use only.",
    "date": "2026-08-01T10:20:30+00:00",
    "settings": {"model": "dcamsr-s", "scale": SCALE},
    "weights_sha256": "0123456789abcdef" * 4,
    "plan": {"device": "cpu"},
    "registration": {
        "accepted": True,
        "reference_to_target_ras": [[1, 0, 0, 2.0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
        "message": "The reference was moved by 2.0 mm.",
    },
}
_PLAIN = {"title": "", "meaning": "", "unit": "", "family": "", "kind": "image", "colours": "grey"}


def new_volume(
    scene: slicer.vtkMRMLScene, array: np.ndarray, matrix: np.ndarray, name: str = "T2"
) -> slicer.vtkMRMLScalarVolumeNode:
    """A scalar volume with a display node, voxels (k, j, i) and a matrix to its parent's frame."""
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    setVolume(node, array, matrix)
    node.CreateDefaultDisplayNodes()
    return node


def put_under(node: slicer.vtkMRMLTransformableNode, matrix: np.ndarray) -> slicer.vtkMRMLLinearTransformNode:
    """A linear transform over a node."""
    transform = node.GetScene().AddNewNodeByClass("vtkMRMLLinearTransformNode", "turned")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def fine_grid(target: slicer.vtkMRMLScalarVolumeNode, across: int = 2) -> Grid:
    """The grid of a result: voxels of the target halved along all axes but the one across the slices."""
    factors = tuple(1 if axis == across else SCALE for axis in range(3))
    return refine_grid(worldGrid(target), factors)  # type: ignore[arg-type]


class Parts:
    """Writes parts of a result for a target, as the worker does; arrays are noise unless given."""

    def __init__(self, folder: Path, target: slicer.vtkMRMLScalarVolumeNode, across: int = 2) -> None:
        self.folder = folder
        self.grid = fine_grid(target, across)

    def volume(self, role: str, name: str = "", array: np.ndarray | None = None, **facts: Any) -> ResultVolume:
        name = name or role
        if array is None:
            array = np.random.default_rng(len(name)).normal(100, 20, self.grid.shape_kji).astype(np.float32)
        file = f"{name.replace('.', '_')}.npy"
        np.save(self.folder / file, array)
        matrix = tuple(tuple(row) for row in self.grid.ijk_to_ras.tolist())
        limits = facts.pop("limits", (None, None))
        words = _PLAIN | facts
        return ResultVolume(PartVolume(role, name, limits=limits, file=file, ijk_to_ras=matrix, **words), self.folder)

    def result(self, **report: Any) -> ResultPart:
        """The first part of a job."""
        change = self.volume("residual", colours="diverging", unit="signal", meaning="Result minus input.")
        volumes = [self.volume("interpolated"), change, self.volume("sr"), self.volume("registered_reference")]
        return ResultPart("result", volumes, (), REPORT | report, ("Look closely.",))

    def maps(self, *volumes: ResultVolume) -> ResultPart:
        return ResultPart("maps", volumes, (), {}, ())

    def scores(self) -> ResultPart:
        """The part that comes with a ground truth."""
        overall = {"measure": ["PSNR (dB)", "SSIM"], "result": [31.5, 0.9], "interpolated": [28.0, None]}
        slices = {"slice": [0, 1, 2], "psnr_result": [30.0, None, 33.0], "psnr_interpolated": [27.0, 28.0, 29.0]}
        tables = PartTable("scores", "Scores", overall), PartTable("by_slice", "PSNR by slice", slices)
        return ResultPart("scores", (), tables, {}, ())
