"""Loading .ui files with the stand-ins; what Slicer would load differently, or not at all, is an error here."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence

from PySide6 import QtCore, QtWidgets
from PySide6.QtUiTools import QUiLoader
from qt_conventions import loading


class UiError(Exception):
    """A .ui file that names what does not exist."""


class UiLoader(QUiLoader):
    """Slicer's `qt.QUiLoader`: knows the stand-ins, and makes the connections that the file asks for.

    Args:
        stand_ins: classes that the file may use besides Qt's own.
    """

    stand_ins: Sequence[type[QtWidgets.QWidget]] = ()

    def createWidget(self, name: str, parent: QtWidgets.QWidget | None = None, called: str = "") -> QtWidgets.QWidget:
        for cls in self.stand_ins:
            if cls.__name__ == name:
                widget = cls(parent)
                widget.objectName = called
                return widget
        if not hasattr(QtWidgets, name):
            raise UiError(f"{name} ({called}) has no stand-in")
        return super().createWidget(name, parent, called)

    def load(self, file: QtCore.QFile, parent: QtWidgets.QWidget | None = None) -> QtWidgets.QWidget:
        root = ElementTree.fromstring(bytes(file.readAll().data()))
        self._check_classes(root)
        connections = _taken_out(root)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        buffer.open(QtCore.QIODevice.ReadOnly)
        with loading():
            widget = super().load(buffer, parent)
        if widget is None:
            raise UiError("Qt could not load the file")
        _check_properties(root, widget)
        for connection in connections:
            _connect(widget, connection)
        _fold_sections(widget)
        return widget

    def _check_classes(self, root: ElementTree.Element) -> None:
        """Qt swallows what createWidget raises, so it is asked first."""
        known = {cls.__name__ for cls in self.stand_ins}
        for element in root.iter("widget"):
            name = element.attrib["class"]
            if name not in known and not hasattr(QtWidgets, name):
                raise UiError(f"{name} ({element.attrib['name']}) has no stand-in")


def _taken_out(root: ElementTree.Element) -> list[dict[str, str]]:
    """The connections, removed from the tree: Qt does not know the signals of stand-ins."""
    found = root.find("connections")
    if found is None:
        return []
    root.remove(found)
    return [{child.tag: child.text or "" for child in connection} for connection in found]


def _connect(top: QtWidgets.QWidget, connection: dict[str, str]) -> None:
    sender, receiver = (_child(top, connection[role]) for role in ("sender", "receiver"))
    slot = getattr(receiver, connection["slot"].partition("(")[0], None)
    if slot is None:
        raise UiError(f"{connection['receiver']} has no slot {connection['slot']}")
    if not sender.connect(connection["signal"], slot):
        raise UiError(f"{connection['sender']} has no signal {connection['signal']}")


def _child(top: QtWidgets.QWidget, name: str) -> QtWidgets.QWidget:
    found = top if top.objectName == name else top.findChild(QtWidgets.QWidget, name)
    if found is None:
        raise UiError(f"a connection names {name}, which is not in the file")
    return found


def _check_properties(root: ElementTree.Element, top: QtWidgets.QWidget) -> None:
    """A misspelt property becomes a dynamic one, in silence."""
    for element in root.iter("widget"):
        widget = _child(top, element.attrib["name"])
        for prop in element.findall("property"):
            name = prop.attrib["name"]
            declared_dynamic = prop.attrib.get("stdset") == "0"
            if not declared_dynamic and name != "buddy" and widget.metaObject().indexOfProperty(name) < 0:
                raise UiError(f"{element.attrib['class']} ({element.attrib['name']}) has no property {name}")


def _fold_sections(top: QtWidgets.QWidget) -> None:
    """Children come after the property that hides them."""
    for section in top.findChildren(QtWidgets.QWidget):
        if hasattr(section, "fold"):
            section.fold()
