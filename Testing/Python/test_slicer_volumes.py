"""Volume nodes to arrays and back: place in the world, parent transforms, types, refusals. On real MRML."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("slicer_core", reason="slicer-core is not installed or lacks libGL", exc_type=ImportError)

import slicer
import vtk
from grids import oblique_grid
from mcsr.errors import InputError
from mcsr.geometry import AxisOrder, rigid_matrix
from mcsr_slicer import volumes
from scene_nodes import new_volume, put_under

TURN = rigid_matrix((10.0, -20.0, 30.0), np.array([5.0, -7.0, 11.0]), np.zeros(3))


def counting(shape: tuple[int, int, int] = (3, 4, 5)) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


ORDERS = [
    AxisOrder((0, 1, 2), (False, False, False)),
    AxisOrder((2, 0, 1), (False, True, False)),
    AxisOrder((1, 0, 2), (False, False, False)),
    AxisOrder((0, 2, 1), (True, True, True)),
]


@pytest.mark.parametrize("order", ORDERS, ids=["as is", "permuted", "left-handed", "reversed"])
def test_oblique_geometry_survives_both_ways(scene: slicer.vtkMRMLScene, order: AxisOrder) -> None:
    grid = order.apply_grid(oblique_grid())
    array = np.random.default_rng(0).random(grid.shape_kji, dtype=np.float32)
    node = new_volume(scene, array, grid.ijk_to_ras)
    data = volumes.volumeData(node)
    assert np.array_equal(data.array, array)
    assert data.name == "T2"
    corners = np.array([[0, 0, 0], np.array(grid.shape_ijk) - 1])
    there = data.ijkToRas[:3, :3] @ corners.T + data.ijkToRas[:3, 3:]
    assert there.T == pytest.approx(grid.to_ras(corners), abs=1e-6)


def test_voxel_lies_where_slicer_says(scene: slicer.vtkMRMLScene) -> None:
    """Slicer's own way to a voxel's place: its matrix, then its transforms."""
    node = new_volume(scene, counting(), oblique_grid().ijk_to_ras)
    put_under(node, TURN)
    matrix = slicer.util.vtkMatrixFromArray(np.eye(4))
    node.GetIJKToRASMatrix(matrix)
    local = matrix.MultiplyPoint((1, 2, 0, 1))[:3]
    expected = [0.0, 0.0, 0.0]
    node.TransformPointToWorld(local, expected)
    found = volumes.volumeData(node).ijkToRas @ [1, 2, 0, 1]
    assert found[:3] == pytest.approx(np.array(expected), abs=1e-6)


def test_nested_transforms_are_all_counted(scene: slicer.vtkMRMLScene) -> None:
    node = new_volume(scene, counting(), np.eye(4))
    inner = put_under(node, TURN)
    put_under(inner, TURN)
    assert volumes.ijkToWorld(node) == pytest.approx(TURN @ TURN, abs=1e-9)


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("float32", "float32"),
        ("int16", "int16"),
        ("uint8", "uint8"),
        ("float16", "float32"),
        ("bool", "uint8"),
        ("int64", "int32"),
        ("uint64", "int32"),
    ],
)
def test_every_type_can_be_stored(scene: slicer.vtkMRMLScene, given: str, stored: str) -> None:
    array = counting().astype(given)
    node = new_volume(scene, array, np.eye(4))
    kept = slicer.util.arrayFromVolume(node)
    assert kept.dtype == stored
    assert np.array_equal(kept, array)


def test_large_integers_keep_their_values(scene: slicer.vtkMRMLScene) -> None:
    array = np.full((1, 1, 2), 2**40)
    assert slicer.util.arrayFromVolume(new_volume(scene, array, np.eye(4))).tolist() == array.tolist()


def test_stored_array_is_a_copy(scene: slicer.vtkMRMLScene) -> None:
    array = counting()
    node = new_volume(scene, array, np.eye(4))
    array[:] = -1
    assert slicer.util.arrayFromVolume(node).min() == 0


def test_double_precision_is_handed_over_as_float32(scene: slicer.vtkMRMLScene) -> None:
    node = new_volume(scene, counting().astype(np.float64), np.eye(4))
    assert volumes.volumeData(node).array.dtype == np.float32


@pytest.mark.parametrize("kind", ["LabelMapVolume", "VectorVolume", "Segmentation", "Model"])
def test_other_nodes_are_refused(scene: slicer.vtkMRMLScene, kind: str) -> None:
    node = scene.AddNewNodeByClass(f"vtkMRML{kind}Node", "wrong one")
    with pytest.raises(InputError, match=r"^wrong one is a \w+; choose a scalar volume"):
        volumes.volumeData(node)


def test_nothing_and_empty_volumes_are_refused(scene: slicer.vtkMRMLScene) -> None:
    with pytest.raises(InputError, match="No volume is selected"):
        volumes.volumeData(None)
    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "hollow")
    with pytest.raises(InputError, match="hollow is empty"):
        volumes.volumeData(empty)


def test_several_values_per_voxel_are_refused(scene: slicer.vtkMRMLScene) -> None:
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "colours")
    image = vtk.vtkImageData()
    image.SetDimensions(2, 2, 2)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    node.SetAndObserveImageData(image)
    with pytest.raises(InputError, match="colours has 3 values per voxel"):
        volumes.volumeData(node)


def test_non_linear_transform_is_refused(scene: slicer.vtkMRMLScene) -> None:
    node = new_volume(scene, counting(), np.eye(4))
    bent = scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "bent")
    node.SetAndObserveTransformNodeID(bent.GetID())
    with pytest.raises(InputError, match="T2 lies under the non-linear transform bent"):
        volumes.volumeData(node)
