"""Scalar volume nodes as arrays with their place in the world, and back; the only place that does this.

Arrays have axes (k, j, i), matrices (4, 4) act on (i, j, k), the world is RAS mm. Parent transforms count: what the
engine is given lies where the views show it.
"""

from __future__ import annotations

import numpy as np
import slicer
import slicer.util
import vtk
from mcsr.errors import InputError
from mcsr.geometry import Grid
from slicer.i18n import tr as _

from .job_folder import VolumeData


def volumeData(node: slicer.vtkMRMLScalarVolumeNode) -> VolumeData:
    """Array and place of a node; the array is a view where its type allows it.

    :raises InputError: no plain scalar volume, an empty one, or one under a non-linear transform.
    """
    _checkVolume(node)
    array = slicer.util.arrayFromVolume(node)
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return VolumeData(array, ijkToWorld(node), node.GetName())


def ijkToWorld(node: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    """Matrix (4, 4) from voxel indices to world RAS mm, linear parent transforms included."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return parentToWorld(node) @ slicer.util.arrayFromVTKMatrix(matrix)


def parentToWorld(node: slicer.vtkMRMLTransformableNode) -> np.ndarray:
    """Matrix (4, 4) of the node's linear parent transforms, world RAS mm; identity without.

    :raises InputError: under a non-linear transform, which a matrix cannot say.
    """
    parent = node.GetParentTransformNode()
    if parent is None:
        return np.eye(4)
    if not parent.IsTransformToWorldLinear():
        raise InputError(
            _("{name} lies under the non-linear transform {transform}; harden the transform on a copy first.").format(
                name=node.GetName(), transform=parent.GetName()
            )
        )
    matrix = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(parent, None, matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def worldGrid(node: slicer.vtkMRMLVolumeNode) -> Grid:
    """The node's voxels in the world."""
    return Grid(tuple(node.GetImageData().GetDimensions()), ijkToWorld(node))


def setVolume(node: slicer.vtkMRMLScalarVolumeNode, array: np.ndarray, ijkToRAS: np.ndarray) -> None:
    """Give a node voxels (k, j, i) and a matrix (4, 4) to its parent's frame; the array is copied."""
    with slicer.util.NodeModify(node):
        node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(ijkToRAS))
        slicer.util.updateVolumeFromArray(node, _storable(array))


def _checkVolume(node: slicer.vtkMRMLNode | None) -> None:
    if node is None:
        raise InputError(_("No volume is selected; choose one."))
    # The classes of colour, label and diffusion volumes derive from that of scalar volumes.
    if node.GetClassName() != "vtkMRMLScalarVolumeNode":
        raise InputError(
            _("{name} is a {kind}; choose a scalar volume, an MR image with one value per voxel.").format(
                name=node.GetName(), kind=node.GetNodeTagName()
            )
        )
    image = node.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None or not image.GetNumberOfPoints():
        raise InputError(_("{name} is empty; load its image or choose another volume.").format(name=node.GetName()))
    if image.GetNumberOfScalarComponents() != 1:
        raise InputError(
            _("{name} has {count} values per voxel; choose a volume with one.").format(
                name=node.GetName(), count=image.GetNumberOfScalarComponents()
            )
        )


def _storable(array: np.ndarray) -> np.ndarray:
    """The same values in a type that Slicer's volumes accept: not float16, bool or 64 bit integers."""
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype in (np.int64, np.uint64):
        limits = np.iinfo(np.int32)
        fits = not array.size or (int(array.min()) >= limits.min and int(array.max()) <= limits.max)
        return array.astype(np.int32 if fits else np.float64)
    return array
