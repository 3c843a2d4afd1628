"""Stand-ins for the widgets of CTK and Slicer that the panel uses: what they have by PythonQt, and nothing more.

They prove the module's code, not that the original widget behaves the same.
"""

from __future__ import annotations

from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import shiboken6
import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets

Property, Signal = QtCore.Property, QtCore.Signal
HEADER = 26
"""Height of the line that folds a section, pixels."""


def stored(kind: Any, default: Any, changed: str = "") -> Any:
    """A Qt property that is only kept; `changed` names a method to call after it was set."""
    values: WeakKeyDictionary[QtCore.QObject, Any] = WeakKeyDictionary()

    def read(self: QtCore.QObject) -> Any:
        return values.get(self, default)

    def write(self: QtCore.QObject, value: Any) -> None:
        values[self] = value
        if changed:
            getattr(self, changed)()

    return Property(kind, read, write)


def ofBox(name: str, kind: type) -> Any:
    """A Qt property of a slider that its spin box keeps."""
    return Property(
        kind,
        lambda self: getattr(self.part("qt_box"), name),
        lambda self, value: setattr(self.part("qt_box"), name, value),
    )


class qMRMLWidget(QtWidgets.QWidget):
    """Hands the scene to those that are connected to it."""

    mrmlSceneChanged = Signal(object)
    signatures: ClassVar = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}

    def setMRMLScene(self, scene: slicer.vtkMRMLScene) -> None:
        self.mrmlSceneChanged.emit(scene)


class ctkCollapsibleButton(QtWidgets.QWidget):
    """A section with a title that folds."""

    contentsCollapsed = Signal(bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.setContentsMargins(0, HEADER, 0, 0)
        self.setSizePolicy(QtWidgets.QSizePolicy.Preferred, QtWidgets.QSizePolicy.Preferred)
        self.setFocusPolicy(QtCore.Qt.TabFocus)

    text = stored(str, "", "update")

    def fold(self) -> None:
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget):
                child.setVisible(not self.collapsed)
        self.setMaximumHeight(HEADER if self.collapsed else 16777215)
        self.contentsCollapsed.emit(self.collapsed)

    collapsed = stored(bool, False, "fold")

    def mousePressEvent(self, event: QtGui.QMouseEvent) -> None:
        if event.position().y() < HEADER:
            self.collapsed = not self.collapsed

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtGui.QPainter(self)
        painter.fillRect(0, 0, self.width, HEADER - 4, QtGui.QColor(214, 219, 226))
        painter.drawText(8, HEADER - 10, f"{'▸' if self.collapsed else '▾'}  {self.text}")
        painter.end()


class ctkSliderWidget(QtWidgets.QWidget):
    """A slider with a spin box beside it."""

    valueChanged = Signal(float)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        slider, box = QtWidgets.QSlider(QtCore.Qt.Horizontal), QtWidgets.QDoubleSpinBox()
        slider.objectName, box.objectName = "qt_slider", "qt_box"
        slider.maximum = 1000
        row.addWidget(slider, 1)
        row.addWidget(box)
        self.setFocusProxy(box)
        slider.connect("valueChanged(int)", self.takeSlider)
        box.connect("valueChanged(double)", self.takeBox)

    def part(self, name: str) -> Any:
        return self.findChild(QtWidgets.QWidget, name)

    def takeSlider(self, place: int) -> None:
        self.part("qt_box").value = self.minimum + (self.maximum - self.minimum) * place / 1000

    def takeBox(self, value: float) -> None:
        slider, span = self.part("qt_slider"), self.maximum - self.minimum
        slider.blockSignals(True)
        slider.value = round(1000 * (value - self.minimum) / span) if span else 0
        slider.blockSignals(False)
        self.valueChanged.emit(value)

    value = ofBox("value", float)
    minimum = ofBox("minimum", float)
    maximum = ofBox("maximum", float)
    singleStep = ofBox("singleStep", float)
    decimals = ofBox("decimals", int)
    suffix = ofBox("suffix", str)


class ctkPathLineEdit(QtWidgets.QWidget):
    """A path with a button that asks for one."""

    currentPathChanged = Signal(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        line, browse = QtWidgets.QLineEdit(), QtWidgets.QToolButton()
        line.objectName = "qt_line"
        browse.text = "..."
        row.addWidget(line, 1)
        row.addWidget(browse)
        self.setFocusProxy(line)
        line.connect("textChanged(QString)", lambda path: self.currentPathChanged.emit(path))

    Files, Dirs = 2, 1
    filters = stored(int, Files | Dirs)
    currentPath = Property(
        str,
        lambda self: self.findChild(QtWidgets.QLineEdit, "qt_line").text,
        lambda self, path: setattr(self.findChild(QtWidgets.QLineEdit, "qt_line"), "text", path),
    )


class qMRMLNodeComboBox(QtWidgets.QWidget):
    """Lists the nodes of some classes in the scene; disabled while it has no scene."""

    currentNodeChanged = Signal(object)
    nodeAddedByUser = Signal(object)
    signatures: ClassVar = {
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "nodeAddedByUser(vtkMRMLNode*)": "nodeAddedByUser",
    }
    scenes: ClassVar[WeakKeyDictionary[QtWidgets.QWidget, slicer.vtkMRMLScene]] = WeakKeyDictionary()
    EVENTS = ("NodeAddedEvent", "NodeRemovedEvent", "EndCloseEvent", "EndImportEvent", "EndBatchProcessEvent")

    nodeTypes = stored("QStringList", [])
    addEnabled = stored(bool, True, "refresh")
    removeEnabled = stored(bool, True)
    renameEnabled = stored(bool, False)
    editEnabled = stored(bool, False)
    noneEnabled = stored(bool, False, "refresh")
    noneDisplay = stored(str, "None", "refresh")
    showChildNodeTypes = stored(bool, True)
    showHidden = stored(bool, False)
    selectNodeUponCreation = stored(bool, True)
    baseName = stored(str, "")
    requestedID = stored(str, "")  # of a node that is not listed yet, as while a scene is being loaded

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(QtWidgets.QComboBox())
        self.setFocusProxy(self.box())
        self.box().connect("currentIndexChanged(int)", lambda: self.currentNodeChanged.emit(self.currentNode()))
        self.enabled = False

    def box(self) -> QtWidgets.QComboBox:
        return self.findChild(QtWidgets.QComboBox)

    def mrmlScene(self) -> slicer.vtkMRMLScene | None:
        return self.scenes.get(self)

    def setMRMLScene(self, scene: slicer.vtkMRMLScene) -> None:
        self.scenes[self] = scene
        self.enabled = scene is not None
        tags = [scene.AddObserver(getattr(slicer.vtkMRMLScene, name), self.onSceneEvent) for name in self.EVENTS]

        def forget(*_: Any) -> None:
            for tag in tags:
                scene.RemoveObserver(tag)

        self.destroyed.connect(forget)
        self.refresh()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onSceneEvent(self, scene: Any, event: str, node: Any = None) -> None:
        if shiboken6.isValid(self) and not scene.IsBatchProcessing():
            self.refresh(leaving=node if event == "NodeRemovedEvent" else None)

    def refresh(self, leaving: Any = None) -> None:
        scene, box, before = self.mrmlScene(), self.box(), self.currentNodeID
        chosen = self.requestedID or before
        if scene is None:
            return
        box.blockSignals(True)
        box.clear()
        if self.noneEnabled:
            box.addItem(self.noneDisplay, "")
        for node in slicer.util.getNodesByClass("vtkMRMLNode", scene=scene):
            if node is not leaving and self.shows(node):
                box.addItem(node.GetName(), node.GetID())
        place = box.findData(chosen) if chosen else -1
        box.currentIndex = place if place >= 0 else (0 if self.noneEnabled else -1)
        box.blockSignals(False)
        if place >= 0:
            self.requestedID = ""
        if self.currentNodeID != before:
            self.currentNodeChanged.emit(self.currentNode())

    def shows(self, node: Any) -> bool:
        if node.GetHideFromEditors() and not self.showHidden:
            return False
        return any(
            node.IsA(name) if self.showChildNodeTypes else node.GetClassName() == name for name in self.nodeTypes
        )

    def currentNode(self) -> Any:
        identifier = self.currentNodeID
        return self.mrmlScene().GetNodeByID(identifier) if identifier else None

    def setCurrentNode(self, node: Any) -> None:
        self.setCurrentNodeID(node.GetID() if node is not None else "")

    def setCurrentNodeID(self, identifier: str) -> None:
        place = self.box().findData(identifier) if identifier else -1
        self.requestedID = identifier if place < 0 else ""
        self.box().currentIndex = place if place >= 0 else (0 if self.noneEnabled else -1)

    def addNode(self) -> Any:
        node = self.mrmlScene().AddNewNodeByClass(self.nodeTypes[0], self.baseName)
        self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    currentNodeID = Property(
        str, lambda self: self.box().currentData or "", lambda self, value: self.setCurrentNodeID(value)
    )


WIDGETS = (qMRMLWidget, ctkCollapsibleButton, ctkSliderWidget, ctkPathLineEdit, qMRMLNodeComboBox)
