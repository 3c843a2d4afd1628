"""Four linked slice views of a result, its input, the change and a map; the user's own views stay as they are."""

from __future__ import annotations

from typing import Any, Protocol

import slicer
import slicer.util
import vtk
from mcsr.geometry import plane_name
from slicer.i18n import tr as _

from .colors import hideLegend, showLegend
from .node_tags import RESULT, TARGET, NodeHandle, nodesOf, sliceAxisOf, tag
from .volumes import worldGrid

LAYOUT_ID = 7401
VIEW_GROUP = 7401
"""Ours alone: views follow each other within a group."""

INPUT_VIEW, RESULT_VIEW, CHANGE_VIEW, MAP_VIEW = "MCSRInput", "MCSRResult", "MCSRResidual", "MCSRMap"
VIEWS = {
    INPUT_VIEW: ("Input", "#8c8c8c"),
    RESULT_VIEW: ("SR", "#3f9b6c"),
    CHANGE_VIEW: ("Change", "#b0592f"),
    MAP_VIEW: ("Map", "#6b5fb5"),
}
"""Label and colour of each view, row by row."""


class SliceWidget(Protocol):
    """The part of Slicer's qMRMLSliceWidget that is used here."""

    def mrmlSliceNode(self) -> slicer.vtkMRMLSliceNode: ...
    def mrmlSliceCompositeNode(self) -> slicer.vtkMRMLSliceCompositeNode: ...
    def sliceLogic(self) -> slicer.vtkMRMLSliceLogic: ...
    def sliceView(self) -> Any: ...


class LayoutManager(Protocol):
    """The part of Slicer's layout manager that is used here: `slicer.app.layoutManager()`."""

    def layoutLogic(self) -> slicer.vtkMRMLLayoutLogic: ...
    def setLayout(self, layout: int) -> None: ...
    def sliceWidget(self, name: str) -> SliceWidget | None: ...


class CompareLayout:
    """Shows a result in four views and gives the user's layout back.

    :param layoutManager: None where Slicer runs without a main window; then nothing is done.
    """

    def __init__(self, layoutManager: LayoutManager | None) -> None:
        self._layoutManager = layoutManager
        self._previous: int | None = None
        self._windowLevel: WindowLevelLink | None = None
        self._change = NodeHandle(None)

    @property
    def isShown(self) -> bool:
        """Whether our layout is the current one."""
        return self._layoutManager is not None and self._layoutNode().GetViewArrangement() == LAYOUT_ID

    def view(self, name: str) -> SliceWidget | None:
        """One of our views; None without a main window, or before the layout was first shown."""
        return self._layoutManager.sliceWidget(name) if self._layoutManager is not None else None

    def show(self, result: slicer.vtkMRMLScalarVolumeNode) -> None:
        """Switch to the four views, oriented along the acquisition, and link them."""
        if self._layoutManager is None:
            return
        self._switchLayout()
        volumes = {
            INPUT_VIEW: inputOf(result),
            RESULT_VIEW: result,
            CHANGE_VIEW: _first(result, "residual"),
            MAP_VIEW: withoutMap(result),
        }
        composites = [self.view(name).mrmlSliceCompositeNode() for name in VIEWS]
        for composite in composites:
            composite.SetLinkedControl(False)
            composite.SetHotLinkedControl(False)
            # Layers and their opacity are each view's own: the controllers of linked views would copy them to all four.
            composite.SetInteractionFlagsModifier(0)
        for name in VIEWS:
            self._fill(self.view(name), volumes[name], result)
        for composite in composites:
            composite.SetLinkedControl(True)
            composite.SetHotLinkedControl(True)
        self._linkWindowLevel(volumes[INPUT_VIEW], result)
        self._showChangeLegend(volumes[CHANGE_VIEW])

    def fit(self) -> None:
        """Fill the views with the image, once they have their sizes."""
        for name in VIEWS if self.isShown else ():
            self.view(name).sliceLogic().FitSliceToBackground()
            self.view(name).sliceLogic().SnapSliceOffsetToIJK()

    def restore(self) -> None:
        """Give the layout back that was there before `show`."""
        if self._windowLevel is not None:
            self._windowLevel.removeObservers()
            self._windowLevel = None
        if self._change.node is not None:
            hideLegend(self._change.node)
        if self.isShown:
            # None before where a scene was loaded that was saved with our layout.
            self._layoutManager.setLayout(self._previous or slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        self._previous = None

    def _layoutNode(self) -> slicer.vtkMRMLLayoutNode:
        return self._layoutManager.layoutLogic().GetLayoutNode()

    def _switchLayout(self) -> None:
        layout = self._layoutNode()
        if layout.GetViewArrangement() != LAYOUT_ID:
            self._previous = layout.GetViewArrangement()
        description = layoutDescription()
        if not layout.IsLayoutDescription(LAYOUT_ID):
            layout.AddLayoutDescription(LAYOUT_ID, description)
        elif layout.GetLayoutDescription(LAYOUT_ID) != description:  # an older version's, of this session or a scene
            layout.SetLayoutDescription(LAYOUT_ID, description)
        self._layoutManager.setLayout(LAYOUT_ID)

    def _fill(
        self, widget: SliceWidget, volume: slicer.vtkMRMLVolumeNode | None, result: slicer.vtkMRMLScalarVolumeNode
    ) -> None:
        composite, node = widget.mrmlSliceCompositeNode(), widget.mrmlSliceNode()
        composite.SetBackgroundVolumeID(volume.GetID() if volume else None)
        composite.SetForegroundVolumeID(None)
        composite.SetLabelVolumeID(None)
        plane = plane_name(worldGrid(result), sliceAxisOf(result))
        node.SetOrientation(plane.capitalize())
        node.RotateToVolumePlane(result)
        widget.sliceLogic().FitSliceToBackground()
        widget.sliceLogic().SnapSliceOffsetToIJK()
        node.SetOrientationMarkerType(node.OrientationMarkerTypeAxes)
        node.SetOrientationMarkerSize(node.OrientationMarkerSizeSmall)
        node.SetRulerType(node.RulerTypeThin)

    def _linkWindowLevel(self, a: slicer.vtkMRMLVolumeNode, b: slicer.vtkMRMLVolumeNode) -> None:
        if self._windowLevel is not None:
            self._windowLevel.removeObservers()
        self._windowLevel = WindowLevelLink(a, b)

    def _showChangeLegend(self, change: slicer.vtkMRMLScalarVolumeNode | None) -> None:
        if self._change.node not in (None, change):
            hideLegend(self._change.node)
        self._change = NodeHandle(change)
        if change is not None:
            showLegend(change, _("Change"), tag(change, "Unit"))


class WindowLevelLink(slicer.util.VTKObservationMixin):
    """Two volumes are shown with one window and level, whichever of them is changed."""

    def __init__(self, a: slicer.vtkMRMLScalarVolumeNode, b: slicer.vtkMRMLScalarVolumeNode) -> None:
        super().__init__()
        self._displays = [NodeHandle(node.GetDisplayNode()) for node in (a, b)]
        for display in {handle.node for handle in self._displays} - {None}:
            self.addObserver(display, vtk.vtkCommand.ModifiedEvent, self._copy)

    def _copy(self, display: slicer.vtkMRMLScalarVolumeDisplayNode, event: str) -> None:
        window, level = display.GetWindow(), display.GetLevel()
        for other in (handle.node for handle in self._displays):
            if other is not None and (other.GetWindow(), other.GetLevel()) != (window, level):
                other.SetAutoWindowLevel(False)
                other.SetWindowLevel(window, level)


def inputOf(result: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLScalarVolumeNode:
    """What a result is compared with: its interpolated input, else the target, else itself."""
    return _first(result, "interpolated") or result.GetNodeReference(TARGET) or result


def withoutMap(result: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLScalarVolumeNode:
    """What the view of the maps shows while no map is chosen: the reference, else the result."""
    return _first(result, "registered_reference") or result


def resultOf(node: slicer.vtkMRMLNode) -> slicer.vtkMRMLScalarVolumeNode | None:
    """The result that a map, a change or a table belongs to."""
    return node.GetNodeReference(RESULT)


def layoutDescription() -> str:
    """The four views, two by two, for Slicer's layout node."""
    views = [_viewDescription(name, *facts) for name, facts in VIEWS.items()]
    rows = ["".join(views[n : n + 2]) for n in (0, 2)]
    items = "".join(f'<item><layout type="horizontal" split="true">{row}</layout></item>' for row in rows)
    return f'<layout type="vertical" split="true">{items}</layout>'


def _viewDescription(name: str, label: str, color: str) -> str:
    return (
        f'<item><view class="vtkMRMLSliceNode" singletontag="{name}">'
        '<property name="orientation" action="default">Axial</property>'
        f'<property name="viewlabel" action="default">{label}</property>'
        f'<property name="viewcolor" action="default">{color}</property>'
        f'<property name="viewgroup" action="default">{VIEW_GROUP}</property>'
        "</view></item>"
    )


def _first(result: slicer.vtkMRMLScalarVolumeNode, role: str) -> slicer.vtkMRMLScalarVolumeNode | None:
    return next(iter(nodesOf(result, role)), None)
