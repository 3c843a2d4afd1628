"""The host itself: it must fail where Slicer would, or the tests of the panel prove nothing."""

from __future__ import annotations

import enum
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest

pytest.importorskip("slicer_core", reason="slicer-core is not installed or lacks libGL", exc_type=ImportError)
pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not installed or lacks libEGL", exc_type=ImportError)

import slicer
from module_host import ModuleHost
from qt_ui import UiError
from stand_ins_parameters import Choice, Default, WithinRange, parameterNodeWrapper

UI = """<?xml version="1.0" encoding="UTF-8"?>
<ui version="4.0"><class>Form</class>
 <widget class="qMRMLWidget" name="Form"><layout class="QVBoxLayout" name="rows">
  <item><widget class="{kind}" name="thing">{properties}</widget></item></layout></widget>
 <connections>{connections}</connections></ui>"""
CONNECTION = (
    "<connection><sender>Form</sender><signal>{signal}</signal>"
    "<receiver>thing</receiver><slot>{slot}</slot></connection>"
)
SCENE = "mrmlSceneChanged(vtkMRMLScene*)"


class Color(enum.Enum):
    RED = 1
    BLUE = 2

    def label(self) -> str:
        return self.name.title()


@parameterNodeWrapper
class Wrapped:
    name: str = "x"
    count: Annotated[int, WithinRange(0, 9)] = 3
    share: Annotated[float, Default(0.5)]
    pick: Annotated[int, Choice([2, 4])] = 4
    color: Color = Color.BLUE
    volume: slicer.vtkMRMLScalarVolumeNode


@pytest.fixture
def wrapped(host: ModuleHost) -> Wrapped:
    return Wrapped(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))


def load(host: ModuleHost, folder: Path, kind: str = "QLabel", properties: str = "", connections: str = "") -> Any:
    file = folder / "form.ui"
    file.write_text(UI.format(kind=kind, properties=properties, connections=connections))
    return slicer.util.loadUI(str(file))


def expect_problem(host: ModuleHost, words: str) -> None:
    problems = host.problems()
    assert len(problems) == 1
    assert words in problems[0]
    host.forgetProblems()


def test_properties_are_attributes(host: ModuleHost) -> None:
    button = host.qt.QPushButton("Go")
    button.enabled = None
    assert (button.text, button.enabled, button.className()) == ("Go", False, "QPushButton")
    with pytest.raises(TypeError, match="callable"):
        button.text()
    with pytest.raises(TypeError, match="is a text"):
        button.text = 5


def test_new_attributes_are_refused(host: ModuleHost) -> None:
    with pytest.raises(AttributeError, match="takes no new ones"):
        host.qt.QPushButton().enable = True
    assert not hasattr(host.qt, "Signal")


def test_slots_get_what_they_take(host: ModuleHost) -> None:
    heard: list[Any] = []
    box = host.qt.QCheckBox()
    box.connect("toggled(bool)", heard.append)
    box.connect("toggled(bool)", lambda: heard.append("nothing"))
    box.checked = True
    assert heard == [True, "nothing"]
    box.disconnect("toggled(bool)", heard.append)
    box.checked = False
    assert heard == [True, "nothing", "nothing"]


def test_exception_in_a_slot_is_a_problem(host: ModuleHost) -> None:
    button = host.qt.QPushButton()
    button.connect("clicked()", lambda: 1 / 0)
    button.click()
    expect_problem(host, "ZeroDivisionError")


def test_exception_in_an_observer_is_a_problem(host: ModuleHost) -> None:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode")
    tag = node.AddObserver("ModifiedEvent", lambda *_: 1 / 0)
    node.SetText("changed")
    node.RemoveObserver(tag)
    problems = host.problems()
    assert problems
    assert all("ZeroDivisionError" in problem for problem in problems)
    host.forgetProblems()


def test_unknown_signal_is_a_problem(host: ModuleHost) -> None:
    assert not host.qt.QPushButton().connect("clickd()", print)
    expect_problem(host, "no signal clickd()")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "ctkRangeWidget"}, "has no stand-in"),
        ({"properties": '<property name="txt"><string>a</string></property>'}, "has no property txt"),
        ({"connections": CONNECTION.format(signal=SCENE, slot="setMRMLScene(vtkMRMLScene*)")}, "has no slot"),
        ({"connections": CONNECTION.format(signal="sceneChanged()", slot="update()")}, "has no signal"),
    ],
)
def test_ui_file_that_slicer_would_not_load_as_meant(
    host: ModuleHost, tmp_path: Path, arguments: dict[str, str], words: str
) -> None:
    with pytest.raises(UiError, match=words):
        load(host, tmp_path, **arguments)
    host.forgetProblems()


def test_scene_reaches_only_connected_selectors(host: ModuleHost, tmp_path: Path) -> None:
    connection = CONNECTION.format(signal=SCENE, slot="setMRMLScene(vtkMRMLScene*)")
    for connections, is_usable in (("", False), (connection, True)):
        form = load(host, tmp_path, "qMRMLNodeComboBox", connections=connections)
        form.setMRMLScene(slicer.mrmlScene)
        assert slicer.util.childWidgetVariables(form).thing.enabled == is_usable


def test_selector_follows_the_scene(host: ModuleHost, tmp_path: Path) -> None:
    connection = CONNECTION.format(signal=SCENE, slot="setMRMLScene(vtkMRMLScene*)")
    kinds = '<property name="nodeTypes"><stringlist><string>vtkMRMLTextNode</string></stringlist></property>'
    form = load(host, tmp_path, "qMRMLNodeComboBox", kinds, connection)
    form.setMRMLScene(slicer.mrmlScene)
    selector = slicer.util.childWidgetVariables(form).thing
    heard: list[Any] = []
    selector.connect("currentNodeChanged(vtkMRMLNode*)", heard.append)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", "note")
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "table")
    selector.setCurrentNode(node)
    assert selector.currentNode() is node
    slicer.mrmlScene.RemoveNode(node)
    assert selector.currentNode() is None
    assert heard == [node, None]


def test_parameters_are_typed_and_kept_in_the_node(wrapped: Wrapped) -> None:
    assert (wrapped.name, wrapped.count, wrapped.share, wrapped.pick) == ("x", 3, 0.5, 4)
    assert (wrapped.color, wrapped.volume) == (Color.BLUE, None)
    wrapped.color, wrapped.count = Color.RED, 7
    again = Wrapped(wrapped.parameterNode)
    assert (again.color, again.count) == (Color.RED, 7)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [("count", 10, ValueError), ("pick", 3, ValueError), ("name", 5, TypeError), ("color", "RED", TypeError)],
)
def test_parameters_refuse(wrapped: Wrapped, name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        setattr(wrapped, name, value)


def test_parameters_and_widgets_stay_equal(host: ModuleHost, wrapped: Wrapped) -> None:
    spin, combo = host.qt.QSpinBox(), host.qt.QComboBox()
    spin.setProperty("SlicerParameterName", "count")
    combo.setProperty("SlicerParameterName", "color")
    tag = wrapped.connectParametersToGui({"count": spin, "color": combo})
    assert (spin.value, spin.maximum, combo.currentText) == (3, 9, "Blue")
    spin.value, combo.currentIndex = 8, 0
    assert (wrapped.count, wrapped.color) == (8, Color.RED)
    wrapped.count = 1
    assert spin.value == 1
    wrapped.disconnectGui(tag)
    spin.value = 5
    assert wrapped.count == 1


def test_widgets_that_cannot_show_a_parameter(host: ModuleHost, wrapped: Wrapped) -> None:
    box = host.qt.QCheckBox()
    box.setProperty("SlicerParameterName", "count")
    with pytest.raises(RuntimeError, match="QCheckBox cannot show the int count"):
        wrapped.connectGui(SimpleNamespace(box=box))
