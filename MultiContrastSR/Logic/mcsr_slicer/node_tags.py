"""What results say of themselves in the scene, and nodes remembered over time.

Attributes are saved with the scene; their names begin with "MultiContrastSR.".
"""

from __future__ import annotations

from collections.abc import Mapping

import slicer
import vtk

PREFIX = "MultiContrastSR."
RESULT, TARGET, REFERENCE, TRANSFORM = (PREFIX + role for role in ("result", "target", "reference", "transform"))
"""Roles of node references; a map refers to the result that it explains."""


class NodeHandle:
    """A node remembered while a job runs: once it is deleted, or its scene closed, there is none.

    An ID alone would not do: a new scene gives the same IDs to other nodes.
    """

    def __init__(self, node: slicer.vtkMRMLNode | None) -> None:
        self._weak = vtk.vtkWeakReference()
        self._weak.Set(node)
        self._id = node.GetID() if node is not None else None

    @property
    def node(self) -> slicer.vtkMRMLNode | None:
        node = self._weak.Get()
        scene = node.GetScene() if node is not None else None
        return node if scene is not None and scene.GetNodeByID(self._id) is node else None


def setTags(node: slicer.vtkMRMLNode, tags: Mapping[str, object]) -> None:
    """Write attributes, keys without the prefix; None and "" remove one."""
    for key, value in tags.items():
        node.SetAttribute(PREFIX + key, None if value in (None, "") else str(value))


def tag(node: slicer.vtkMRMLNode, key: str) -> str:
    """One attribute, "" where there is none."""
    return node.GetAttribute(PREFIX + key) or ""


def sliceAxisOf(result: slicer.vtkMRMLNode) -> int:
    """Storage axis (0 = i, 1 = j, 2 = k) across the slices of a result."""
    return int(tag(result, "SliceAxis") or 2)


def nodesOf(result: slicer.vtkMRMLNode, role: str = "") -> list[slicer.vtkMRMLNode]:
    """The nodes that belong to a result, in the order in which they came; of one role, if given ("map", ...)."""
    nodes = slicer.util.getNodesByClass("vtkMRMLNode", result.GetScene())
    return [n for n in nodes if n.GetNodeReferenceID(RESULT) == result.GetID() and role in ("", tag(n, "Role"))]
