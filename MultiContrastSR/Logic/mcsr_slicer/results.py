"""Parts of a result become nodes: beside the target in the subject hierarchy, on its frame, saying what they are.

Study
  T2
  T2 SRx4                    the result, with the target's window and level
  T2 SRx4 details            folder: interpolated target, change, registered reference, transform, tables
    Attention, Features...   folders: maps by family, as the engine names them
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import slicer
import slicer.util
from mcsr.errors import InputError
from mcsr.geometry import slice_axis
from slicer.i18n import tr as _

from .colors import applyColours
from .hierarchy import allItems, fileBeside, removeItems
from .job_folder import ResultPart, ResultVolume
from .metrics_nodes import addPlot, addTable
from .node_tags import REFERENCE, RESULT, TARGET, TRANSFORM, NodeHandle, nodesOf, setTags, tag
from .provenance import registrationMatrix, tagResult
from .volumes import parentToWorld, setVolume, worldGrid

_SUFFIXES = {
    "interpolated": "interpolated",
    "residual": "change",
    "error": "error",
    "registered_reference": "reference",
    "simulated_target": "low resolution",
}
"""What follows the result's name, by role; a map has its title."""

_MAP_ROLES = ("map", "point_map")
_WINDOW_OF_TARGET = ("sr", "interpolated", "simulated_target")


class ResultNodes:
    """Takes the parts of one job into the scene. To be made when the job is submitted.

    Results lie on the target's own frame: where the target is under a linear transform, so are they, and follow it when
    it is changed or hardened. A result that is used again as an output keeps its node, and so do its map of one name;
    what is left of the former job goes.

    :param scene: where the target is.
    :param target: the volume that is enhanced.
    :param reference: of the job, if any.
    :param outputs: nodes to use again, by role ("sr", "residual", ...); None or absent: new ones. For maps alone, "sr"
        is the result that they explain.
    :raises InputError: when an output is an input, or the target is under a non-linear transform.
    """

    def __init__(
        self,
        scene: slicer.vtkMRMLScene,
        target: slicer.vtkMRMLScalarVolumeNode,
        reference: slicer.vtkMRMLScalarVolumeNode | None = None,
        outputs: Mapping[str, slicer.vtkMRMLScalarVolumeNode | None] | None = None,
    ) -> None:
        self._scene = scene
        self._target, self._reference = NodeHandle(target), NodeHandle(reference)
        self._targetGrid = worldGrid(target)
        # The engine works in the world as it is now; the target may be moved while it does.
        self._worldToFrame = np.linalg.inv(parentToWorld(target))
        self._nodes = {role: NodeHandle(node) for role, node in (outputs or {}).items() if node is not None}
        for handle in self._nodes.values():
            if handle.node is target or (reference is not None and handle.node is reference):
                raise InputError(
                    _("{name} is an input and would be overwritten; choose another output.").format(
                        name=handle.node.GetName()
                    )
                )

    def node(self, role: str) -> slicer.vtkMRMLScalarVolumeNode | None:
        """The volume of a role ("sr", "interpolated", "residual", ...) while it is in the scene."""
        handle = self._nodes.get(role)
        return handle.node if handle else None

    def addPart(self, part: ResultPart) -> list[slicer.vtkMRMLNode]:
        """Make or fill the nodes of a part: all of them, or none.

        :returns: the nodes, the result first.
        :raises InputError: when the target, or the result that maps belong to, has left the scene; a damaged file.
        """
        target = self._target.node
        if target is None:
            raise InputError(_("The target volume has left the scene, so its result was not added."))
        if part.name != "result" and self.node("sr") is None:
            raise InputError(_("The result has left the scene, so what belongs to it was not added."))
        # All is read before the scene is touched; the result comes first, since the others refer to it.
        volumes = [(volume, volume.readArray()) for volume in sorted(part.volumes, key=lambda v: v.facts.role != "sr")]
        with _allOrNothing(self._scene):
            nodes = [self._addVolume(volume, array, part.report, target) for volume, array in volumes]
            if part.name == "result":
                nodes += self._describeResult(part, volumes, target)
            nodes += self._addTables(part)
        if part.name == "result":
            self._removeFormer(nodes)
        return nodes

    def _addVolume(
        self, volume: ResultVolume, array: np.ndarray, report: Mapping[str, Any], target: slicer.vtkMRMLVolumeNode
    ) -> slicer.vtkMRMLScalarVolumeNode:
        facts = volume.facts
        isMap = facts.role in _MAP_ROLES
        node = self._formerNode(facts.role, facts.name)
        if node is None:
            node = self._scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", self._newName(volume, report, target))
        if not isMap:
            self._nodes[facts.role] = NodeHandle(node)
        with slicer.util.NodeModify(node):
            setVolume(node, array, self._worldToFrame @ volume.ijkToRas)
            node.SetAndObserveTransformNodeID(target.GetTransformNodeID())
            node.SetDescription(facts.meaning)
        keys = ("title", "meaning", "unit", "family", "kind", "colours")
        setTags(node, {"Role": facts.role, **{key.capitalize(): getattr(facts, key) for key in keys}})
        if isMap:
            setTags(node, {"Map": facts.name, "Point": " ".join(f"{mm:g}" for mm in report.get("point_ras") or ())})
        self._show(node, volume, array, target)
        if facts.role == "sr":
            fileBeside(node, target)
        else:
            self._fileDetail(node, *([facts.family] if isMap and facts.family else []))
        return node

    def _formerNode(self, role: str, name: str) -> slicer.vtkMRMLScalarVolumeNode | None:
        """The node to fill again: one that was chosen, or that an earlier job made for the same result."""
        node, result = self.node(role), self.node("sr")
        if role in _MAP_ROLES and result is not None:
            return next((n for n in nodesOf(result, role) if tag(n, "Map") == name), None)
        if node is None and result is not None:
            node = next(iter(nodesOf(result, role)), None)
        return node

    def _newName(self, volume: ResultVolume, report: Mapping[str, Any], target: slicer.vtkMRMLVolumeNode) -> str:
        role, result = volume.facts.role, self.node("sr")
        if role == "sr" or result is None:
            scale = (report.get("settings") or {}).get("scale", "")
            return self._scene.GenerateUniqueName(f"{target.GetName()} SRx{scale}")
        return f"{result.GetName()} {_SUFFIXES.get(role) or volume.facts.title or volume.facts.name}"

    def _show(
        self,
        node: slicer.vtkMRMLScalarVolumeNode,
        volume: ResultVolume,
        array: np.ndarray,
        target: slicer.vtkMRMLScalarVolumeNode,
    ) -> None:
        role = volume.facts.role
        like = {"registered_reference": self._reference.node} | dict.fromkeys(_WINDOW_OF_TARGET, target)
        if role not in like:
            applyColours(node, array, volume.facts.colours, volume.facts.limits)
            return
        node.CreateDefaultDisplayNodes()
        shown = like[role] and like[role].GetDisplayNode()
        if shown is not None:
            display = node.GetDisplayNode()
            with slicer.util.NodeModify(display):
                display.SetAndObserveColorNodeID(shown.GetColorNodeID())
                display.SetAutoWindowLevel(False)
                display.SetWindowLevel(shown.GetWindow(), shown.GetLevel())

    def _describeResult(
        self, part: ResultPart, volumes: Sequence[tuple[ResultVolume, np.ndarray]], target: slicer.vtkMRMLVolumeNode
    ) -> list[slicer.vtkMRMLNode]:
        """Provenance of the result, and the transform of the registration."""
        result, reference = self.node("sr"), self._reference.node
        tagResult(result, part.report, part.warnings)
        low = next((array.shape for volume, array in volumes if volume.facts.role == "simulated_target"), None)
        setTags(result, {"SliceAxis": self._sliceAxis(result, low or self._targetGrid.shape_kji)})
        result.SetNodeReferenceID(TARGET, target.GetID())
        result.SetNodeReferenceID(REFERENCE, reference.GetID() if reference else None)
        transform = self._addTransform(part.report)
        result.SetNodeReferenceID(TRANSFORM, transform.GetID() if transform else None)
        return [transform] if transform else []

    def _sliceAxis(self, result: slicer.vtkMRMLVolumeNode, low: tuple[int, ...]) -> int:
        """Storage axis (0 = i, 1 = j, 2 = k) across the slices: the one that was not refined."""
        grid = worldGrid(result)
        same = [axis for axis in range(3) if grid.shape_kji[2 - axis] == low[2 - axis]]
        return same[0] if len(same) == 1 else slice_axis(grid)

    def _addTransform(self, report: Mapping[str, Any]) -> slicer.vtkMRMLLinearTransformNode | None:
        matrix, result = registrationMatrix(report), self.node("sr")
        if matrix is None:
            return None
        former = nodesOf(result, "transform")
        node = former[0] if former else None
        if node is None:
            name = f"{result.GetName()} reference to target"
            node = self._scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
        node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.array(matrix)))
        node.SetDescription(report["registration"].get("message", ""))
        setTags(node, {"Role": "transform"})
        self._fileDetail(node)
        return node

    def _addTables(self, part: ResultPart) -> list[slicer.vtkMRMLNode]:
        nodes = []
        for table in part.tables:
            node = addTable(self._scene, table, f"{self.node('sr').GetName()} {table.title or table.name}")
            made = [node, *addPlot(node)]
            for one in made:
                setTags(one, {"Role": "table" if one is node else "plot"})
                self._fileDetail(one)
            nodes += made
        return nodes

    def _fileDetail(self, node: slicer.vtkMRMLNode, *folders: str) -> None:
        """Into the folder beside the result, and referring to it."""
        result = self.node("sr")
        node.SetNodeReferenceID(RESULT, result.GetID())
        fileBeside(node, result, _("{name} details").format(name=result.GetName()), *folders)

    def _removeFormer(self, nodes: Sequence[slicer.vtkMRMLNode]) -> None:
        """Maps and scores of an earlier job do not explain the result that now stands in its node."""
        for node in nodesOf(self.node("sr")):
            if not any(node is one for one in nodes):
                _remove(self._scene, node)


@contextmanager
def _allOrNothing(scene: slicer.vtkMRMLScene) -> Iterator[None]:
    """Nodes and folders that come into the scene within this block leave it again when the block fails."""
    before, items = {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLNode", scene)}, allItems(scene)
    try:
        yield
    except BaseException:
        for node in slicer.util.getNodesByClass("vtkMRMLNode", scene):
            if node.GetID() not in before:
                scene.RemoveNode(node)
        removeItems(scene, allItems(scene) - items)
        raise


def _remove(scene: slicer.vtkMRMLScene, node: slicer.vtkMRMLNode) -> None:
    """With its display and storage nodes, which nobody else uses."""
    if node.IsA("vtkMRMLDisplayableNode"):
        for number in reversed(range(node.GetNumberOfDisplayNodes())):
            scene.RemoveNode(node.GetNthDisplayNode(number))
    if node.IsA("vtkMRMLStorableNode") and node.GetStorageNode() is not None:
        scene.RemoveNode(node.GetStorageNode())
    scene.RemoveNode(node)
