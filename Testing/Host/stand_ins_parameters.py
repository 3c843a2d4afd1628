"""Stand-in for `slicer.parameterNodeWrapper`: typed members over a node's parameters and references.

Same rules as the original for what the module uses; the texts it writes into the node differ.
"""

from __future__ import annotations

import enum
import json
import typing
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import slicer
import vtk
from PySide6 import QtWidgets
from stand_ins import ctkSliderWidget, qMRMLNodeComboBox

PROPERTY = "SlicerParameterName"
"""Dynamic property by which a widget says which member it shows."""


@dataclass(frozen=True)
class WithinRange:
    """A number that lies between two, ends included."""

    minimum: float
    maximum: float

    def validate(self, value: float) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not within {self.minimum} to {self.maximum}")


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    choices: list[Any]

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"{value} is none of {self.choices}")


@dataclass(frozen=True)
class Default:
    """What a member is before it was set."""

    value: Any


class Member:
    """One typed member: how it lies in the node."""

    def __init__(self, name: str, kind: Any, given: Any) -> None:
        self.name = name
        self.annotations = typing.get_args(kind)[1:] if hasattr(kind, "__metadata__") else ()
        self.type = typing.get_args(kind)[0] if self.annotations else kind
        self.isNode = isinstance(self.type, type) and issubclass(self.type, vtk.vtkObject)
        stated = [a.value for a in self.annotations if isinstance(a, Default)]
        self.default = given if given is not None else stated[0] if stated else None if self.isNode else self.zero()

    def zero(self) -> Any:
        return next(iter(self.type)) if issubclass(self.type, enum.Enum) else self.type()

    def __get__(self, wrapper: Any, owner: type) -> Any:
        return wrapper.parameterNode.GetNodeReference(self.name) if self.isNode else wrapper.values[self.name]

    def read(self, wrapper: Any) -> Any:
        """What the node says, or the default where it says nothing."""
        if not self.isIn(wrapper.parameterNode):
            return self.default
        value = json.loads(wrapper.parameterNode.GetParameter(self.name))
        return self.type[value] if issubclass(self.type, enum.Enum) else self.type(value)

    def __set__(self, wrapper: Any, value: Any) -> None:
        node = wrapper.parameterNode
        if self.isNode:
            if value is not None and not value.IsA(self.type.__name__):
                raise TypeError(f"{self.name} takes no {value.GetClassName()}")
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
            return
        if not isinstance(value, int if self.type is float else self.type) and not isinstance(value, self.type):
            raise TypeError(f"{self.name} is a {self.type.__name__}, not {value!r}")
        for annotation in self.annotations:
            if not isinstance(annotation, Default):
                annotation.validate(value)
        wrapper.values[self.name] = value
        node.SetParameter(self.name, json.dumps(value.name if isinstance(value, enum.Enum) else value))

    def isIn(self, node: Any) -> bool:
        return self.isNode or bool(node.GetParameter(self.name))


class Wrapper:
    """What the decorator adds."""

    members: dict[str, Member]

    def __init__(self, parameterNode: Any) -> None:
        self.parameterNode = parameterNode
        self.shown: dict[int, tuple[list[Connector], int]] = {}
        self.isUpdating = False
        self.values: dict[str, Any] = {}
        for member in self.members.values():
            if not member.isIn(parameterNode):
                member.__set__(self, member.default)
        self.readAll()
        # The node outlives its wrappers.
        alive = weakref.ref(self)
        observer = parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: alive() and alive().readAll())
        weakref.finalize(self, parameterNode.RemoveObserver, observer)

    def readAll(self) -> None:
        """Slicer's wrapper, too, keeps values of its own, which follow only what the node announces."""
        self.values |= {name: member.read(self) for name, member in self.members.items() if not member.isNode}

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, before: int) -> None:
        self.parameterNode.EndModify(before)

    def AddObserver(self, event: Any, callback: Callable[..., None], priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def connectGui(self, gui: Any) -> None:
        """As in Slicer, whose connectGui does not hand on the tag either."""
        widgets = [w for w in vars(gui).values() if isinstance(w, QtWidgets.QWidget) and w.property(PROPERTY)]
        self.connectParametersToGui({w.property(PROPERTY): w for w in widgets})

    def connectParametersToGui(self, mapping: dict[str, QtWidgets.QWidget]) -> int:
        connectors = [Connector(self, self.members[name], widget) for name, widget in mapping.items()]
        tag = len(self.shown)
        self.shown[tag] = connectors, self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self.updateGui())
        self.updateGui()
        for connector in connectors:
            connector.listen()
        return tag

    def disconnectGui(self, tag: int | None) -> None:
        if tag not in self.shown:
            return
        connectors, observer = self.shown.pop(tag)
        self.RemoveObserver(observer)
        for connector in connectors:
            connector.stop()

    def updateGui(self) -> None:
        if self.isUpdating:
            return
        self.isUpdating = True
        try:
            for connectors, _observer in self.shown.values():
                for connector in connectors:
                    connector.write(connector.member.__get__(self, type(self)))
        finally:
            self.isUpdating = False


class Connector:
    """Keeps a widget and a member equal. Which pairs there are is as in Slicer; another pair is an error."""

    def __init__(self, wrapper: Wrapper, member: Member, widget: QtWidgets.QWidget) -> None:
        self.wrapper, self.member, self.widget = wrapper, member, widget
        kinds = {
            QtWidgets.QCheckBox: ("checked", "stateChanged(int)", bool),
            QtWidgets.QSpinBox: ("value", "valueChanged(int)", int),
            ctkSliderWidget: ("value", "valueChanged(double)", float),
            QtWidgets.QLineEdit: ("text", "textChanged(QString)", str),
            QtWidgets.QComboBox: ("currentIndex", "currentIndexChanged(int)", enum.Enum),
            qMRMLNodeComboBox: ("", "currentNodeChanged(vtkMRMLNode*)", slicer.vtkMRMLNode),
        }
        if type(widget) not in kinds or not issubclass(member.type, kinds[type(widget)][2]):
            raise RuntimeError(f"{type(widget).__name__} cannot show the {member.type.__name__} {member.name}")
        self.attribute, self.signal, _ = kinds[type(widget)]
        self.choices = list(member.type) if issubclass(member.type, enum.Enum) else []
        if self.choices:
            widget.clear()
            for choice in self.choices:
                widget.addItem(choice.label() if hasattr(choice, "label") else choice.name)
        for limits in (a for a in member.annotations if isinstance(a, WithinRange)):
            widget.minimum, widget.maximum = limits.minimum, limits.maximum

    def listen(self) -> None:
        self.widget.connect(self.signal, self.changed)

    def stop(self) -> None:
        self.widget.disconnect(self.signal, self.changed)

    def changed(self) -> None:
        if not self.wrapper.isUpdating:
            with slicer.util.NodeModify(self.wrapper):
                self.member.__set__(self.wrapper, self.read())

    def read(self) -> Any:
        if not self.attribute:
            return self.widget.currentNode()
        value = getattr(self.widget, self.attribute)
        return self.choices[value] if self.choices else value

    def write(self, value: Any) -> None:
        if self.attribute:
            setattr(self.widget, self.attribute, self.choices.index(value) if self.choices else value)
        else:
            self.widget.setCurrentNode(value)


def parameterNodeWrapper(cls: type) -> type:
    """Class decorator."""
    hints = typing.get_type_hints(cls, include_extras=True)
    members = {name: Member(name, kind, getattr(cls, name, None)) for name, kind in hints.items()}
    reserved = [name for name in members if hasattr(Wrapper, name)]
    if reserved:
        raise ValueError(f"Cannot use reserved names {reserved}")
    own = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    return type(cls.__name__, (Wrapper,), {**own, **members, "members": members})


def parameter_module() -> ModuleType:
    """`slicer.parameterNodeWrapper`."""
    module = ModuleType("slicer.parameterNodeWrapper")
    for thing in (parameterNodeWrapper, WithinRange, Choice, Default):
        setattr(module, thing.__name__, thing)
    return module
