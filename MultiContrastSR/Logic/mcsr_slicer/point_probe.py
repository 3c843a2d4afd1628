"""A click on the result: where in the reference its detail came from.

    answer = probePoint(result, ras)                  # raises InputError: a sentence for the user
    if isinstance(answer, PointRequest):              # only the network knows: ask it
        submit a job of kind "maps" with the volumes and settings of answer.origin and pointRas = answer.ras;
        when its part "maps" has been added by ResultNodes: answer = answerOfPoint(result, ras)
    markSource(answer, result); show answer.sentence

Displacements (CD-DPE, DAASR, HFTN-SR) are read off maps in the scene, at once. Where there are none, the maps of the
point are asked for (DCAMSR and DiffMSR: attention; DAASR and HFTN-SR: scores): the worker runs one slice for them, and
they come as volumes of the role "point_map", one a name, which the next point's replace.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import slicer
import slicer.util
import vtk
from mcsr.errors import InputError
from mcsr.geometry import AxisOrder, Grid, display_order
from slicer.i18n import tr as _

from .compare_layout import VIEWS, SliceWidget, resultOf
from .node_tags import RESULT, TRANSFORM, nodesOf, setTags, sliceAxisOf, tag
from .provenance import Origin, offersPointMaps, originOf
from .volumes import worldGrid

_COLUMNS, _ROWS = "columns", "rows"
_DISPLACEMENT = "displacement_"
_SCORES = ("score_", "relevance_", "mask_")
"""How sure a network is of a displacement: a map of that name with the same ending."""
_OF_REFERENCE = ("attended_reference", "match_scores")
"""Maps of a point begin so that show the reference; others show the target's own surroundings."""

_ARBITRARY = "arbitrary"
"""Unit of weights that mean something beside each other only."""

_MOST = 0.5
"""Share of the attention from which on one place can be called the source."""

_CLICK_PIXELS = 3
_BEFORE_OTHERS = 10.0
_MARK_COLOR, _MARK_TEXT_PERCENT = (1.0, 0.69, 0.0), 2.5


@dataclass(frozen=True)
class PointSource:
    """Where the detail at a point came from.

    :param name: of the map that tells it, "displacement_g6".
    :param clicked: RAS mm, in the world.
    :param source: RAS mm, in the world, on the registered reference: where it shows in views of the result.
    :param inReference: the same place in the reference as it was loaded, RAS mm.
    :param score: how sure the network is, None where it does not say.
    :param sentence: for the user.
    """

    name: str
    clicked: tuple[float, float, float]
    source: tuple[float, float, float]
    inReference: tuple[float, float, float]
    score: float | None
    sentence: str


@dataclass(frozen=True)
class PointRequest:
    """What the worker has to be asked before there is an answer.

    :param ras: of the click, RAS mm, in the world.
    :param origin: of the result; its settings name all maps of a point.
    :param sentence: for the user, until the answer comes.
    """

    ras: tuple[float, float, float]
    origin: Origin
    sentence: str


def probePoint(result: slicer.vtkMRMLScalarVolumeNode, ras: tuple[float, float, float]) -> PointSource | PointRequest:
    """Where the detail at a point of the result came from, or what to ask the worker to find out.

    :param ras: of the click, mm, in the world.
    :raises InputError: outside the volume; a volume has left the scene; a network that cannot tell.
    """
    if _voxelAt(result, ras) is None:
        raise InputError(_("The point lies outside the result; click inside."))
    found = sourceOf(result, ras)
    if found is not None:
        return found
    if not offersPointMaps(result):
        raise InputError(
            _("The maps of this result do not tell where its detail came from; compute its displacement maps first.")
        )
    origin = originOf(result)
    if origin is None:
        raise InputError(_("The network cannot be asked: the target or the reference has left the scene."))
    origin.settings["maps"] = "all"
    return PointRequest(ras, origin, _("Asking the network..."))


def answerOfPoint(result: slicer.vtkMRMLScalarVolumeNode, ras: tuple[float, float, float]) -> PointSource | None:
    """What the maps of a point that are in the scene say: of several the one that says it most clearly.

    :param ras: of the click that they are maps of.
    :returns: None where there are none.
    """
    maps = [node for node in nodesOf(result, "point_map") if tag(node, "Kind") != "labels"]
    found = [strongestPoint(node, ras) for node in maps if tag(node, "Map").startswith(_OF_REFERENCE)]
    return max((one for one in found if one is not None), key=lambda one: one.score or 0.0, default=None)


def probes(result: slicer.vtkMRMLScalarVolumeNode) -> list[str]:
    """Names of the displacements that are in the scene for a result, "displacement_g6"; the most telling last."""
    found = {tag(node, "Map").rpartition(".")[0] for node in nodesOf(result, "map") if tag(node, "Map").endswith(_ROWS)}
    names = [name for name in found if name.startswith(_DISPLACEMENT)]
    # Networks that refine their match number the steps; what the reference takes from common parts is no source.
    return sorted(names, key=lambda name: ("common" not in name, _lastNumber(name), name))


def sourceOf(
    result: slicer.vtkMRMLScalarVolumeNode, ras: tuple[float, float, float], name: str = ""
) -> PointSource | None:
    """Where the detail at a point of the result came from.

    :param ras: mm, in the world.
    :param name: one of `probes`, the last by default.
    :returns: None outside the volume, and where no displacement is in the scene.
    """
    name = name or next(reversed(probes(result)), "")
    maps = {tag(node, "Map"): node for node in nodesOf(result, "map")}
    columns, rows = maps.get(f"{name}.{_COLUMNS}"), maps.get(f"{name}.{_ROWS}")
    ijk = _voxelAt(result, ras)
    if columns is None or rows is None or ijk is None:
        return None
    grid = worldGrid(result)
    shown = _displayOrder(result).apply_grid(grid).ijk_to_ras
    steps = np.array([_value(columns, ijk), _value(rows, ijk)])
    source = np.array(ras) + shown[:3, :2] @ steps
    score = _score(maps, name, ijk)
    sentence = _("The detail here comes from {mm:.1f} mm away in the reference.")
    if score is not None:
        sentence += " " + _("The network's weight for it is {score:.2f}.")
    return _pointSource(result, name, ras, source, score, sentence, score=score)


def strongestPoint(node: slicer.vtkMRMLScalarVolumeNode, ras: tuple[float, float, float]) -> PointSource | None:
    """The place in the reference that a clicked point draws on most.

    :param node: a map of that point: its attention, or its scores, on the result's grid.
    :param ras: of the click, mm, in the world.
    """
    result, ijk = resultOf(node), _voxelAt(node, ras)
    if result is None or ijk is None:
        return None
    array = slicer.util.arrayFromVolume(node)
    axis = sliceAxisOf(result)
    plane = np.take(array, ijk[axis], axis=2 - axis)
    if not plane.any():
        return None
    if tag(node, "Colours") == "diverging":  # what is subtracted is drawn on, too
        plane = np.abs(plane)
    # Ties, as within one patch, count as their middle.
    places = np.argwhere(plane == plane.max()).mean(axis=0)
    place = np.insert(places, 2 - axis, ijk[axis])[::-1]
    source, name, top = worldGrid(node).to_ras(place), tag(node, "Map"), float(plane.max())
    unit = tag(node, "Unit")
    if unit not in ("", _ARBITRARY):
        sentence = _("The best match in the reference is {mm:.1f} mm away; its {unit} is {value:.2f}.")
        return _pointSource(result, name, ras, source, top, sentence, unit=unit, value=top)
    share = top / float(plane.sum())
    sentence = _("The detail here comes from {mm:.1f} mm away in the reference ({percent:.0f} % of the attention).")
    if share < _MOST:
        sentence = _(
            "The network draws on many places of the reference here; the one with the largest share, {percent:.1f} %, "
            "is {mm:.1f} mm away."
        )
    return _pointSource(result, name, ras, source, share, sentence, percent=100 * share)


def markSource(found: PointSource, result: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLMarkupsFiducialNode:
    """Crosses "here" and "from here" in our views, in one markups node of the result; a former pair is moved."""
    node = next(iter(nodesOf(result, "probe")), None) or _newMarks(result)
    with slicer.util.NodeModify(node):
        node.RemoveAllControlPoints()
        node.AddControlPointWorld(vtk.vtkVector3d(found.clicked), _("here"))
        node.AddControlPointWorld(vtk.vtkVector3d(found.source), _("from here"))
        node.SetLocked(True)
        setTags(node, {"Meaning": found.sentence})
    return node


class ClickListener(slicer.util.VTKObservationMixin):
    """Tells where a view was clicked, in world RAS mm; a drag is no click.

    :param widget: of the view.
    :param onClick: receives (r, a, s).
    """

    def __init__(self, widget: SliceWidget, onClick: Callable[[tuple[float, float, float]], None]) -> None:
        super().__init__()
        self._widget, self._onClick = widget, onClick
        self._pressed: tuple[int, int] | None = None
        interactor = widget.sliceView().interactorStyle().GetInteractor()
        # Before Slicer's own handling, which may keep an event to itself.
        self.addObserver(interactor, vtk.vtkCommand.LeftButtonPressEvent, self._press, priority=_BEFORE_OTHERS)
        self.addObserver(interactor, vtk.vtkCommand.LeftButtonReleaseEvent, self._release, priority=_BEFORE_OTHERS)

    def _press(self, interactor: vtk.vtkRenderWindowInteractor, event: str) -> None:
        self._pressed = interactor.GetEventPosition()

    def _release(self, interactor: vtk.vtkRenderWindowInteractor, event: str) -> None:
        pressed, (x, y) = self._pressed, interactor.GetEventPosition()
        self._pressed = None
        if pressed is not None and max(abs(pressed[0] - x), abs(pressed[1] - y)) <= _CLICK_PIXELS:
            matrix = self._widget.mrmlSliceNode().GetXYToRAS()
            self._onClick(tuple(matrix.MultiplyPoint((x, y, 0.0, 1.0))[:3]))


def _lastNumber(name: str) -> int:
    digits = re.findall(r"\d+", name)
    return int(digits[-1]) if digits else 0


def _newMarks(result: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLMarkupsFiducialNode:
    scene = result.GetScene()
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", f"{result.GetName()} source of detail")
    node.SetNodeReferenceID(RESULT, result.GetID())
    setTags(node, {"Role": "probe"})
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetSelectedColor(*_MARK_COLOR)
    display.SetGlyphType(display.CrossDot2D)
    display.SetTextScale(_MARK_TEXT_PERCENT)
    for view in (scene.GetSingletonNode(name, "vtkMRMLSliceNode") for name in VIEWS):
        if view is not None:
            display.AddViewNodeID(view.GetID())
    return node


def _voxelAt(node: slicer.vtkMRMLVolumeNode, ras: tuple[float, float, float]) -> np.ndarray | None:
    """Voxel (i, j, k) that holds a point of the world; None outside."""
    grid: Grid = worldGrid(node)
    ijk = np.rint(grid.to_ijk(ras)).astype(int)
    return ijk if ((ijk >= 0) & (ijk < grid.shape_ijk)).all() else None


def _displayOrder(result: slicer.vtkMRMLVolumeNode) -> AxisOrder:
    """The engine counts displacements in columns and rows of a radiologist's display, not of the storage."""
    return display_order(worldGrid(result), sliceAxisOf(result))


def _value(node: slicer.vtkMRMLVolumeNode, ijk: np.ndarray) -> float:
    return float(slicer.util.arrayFromVolume(node)[tuple(ijk[::-1])])


def _score(maps: dict[str, slicer.vtkMRMLVolumeNode], name: str, ijk: np.ndarray) -> float | None:
    ending = name.removeprefix(_DISPLACEMENT)
    node = next((maps[prefix + ending] for prefix in _SCORES if prefix + ending in maps), None)
    return None if node is None else _value(node, ijk)


def _pointSource(
    result: slicer.vtkMRMLVolumeNode,
    name: str,
    ras: tuple[float, float, float],
    source: np.ndarray,
    weight: float | None,
    sentence: str,
    **words: object,
) -> PointSource:
    """With a sentence, whose {mm} is the way from the click to the source."""
    sentence = sentence.format(mm=float(np.linalg.norm(source - np.array(ras))), **words)
    before = _toReference(result) @ np.append(source, 1.0)
    places = (tuple(float(mm) for mm in place[:3]) for place in (ras, source, before))
    return PointSource(name, *places, weight, sentence)


def _toReference(result: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    """From the target's world to where the reference was before its registration (4, 4)."""
    transform = result.GetNodeReference(TRANSFORM)
    if transform is None:
        return np.eye(4)
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformFromParent(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)
