"""MultiContrastSR.py with small stand-ins for Slicer: what it declares, and that loading it costs nothing."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import mcsr
import pytest

MODULE_FOLDER = Path(__file__).resolve().parents[2] / "MultiContrastSR"
MODULE_FILE = MODULE_FOLDER / "MultiContrastSR.py"
LOGIC = str(MODULE_FOLDER / "Logic")


class StandInModule:
    def __init__(self, parent: Any) -> None:
        self.parent = parent


class StandInWidget:
    reloaded = False

    def setup(self) -> None:
        self.layout = SimpleNamespace(addWidget=lambda widget: None)

    def resourcePath(self, name: str) -> str:
        return str(MODULE_FOLDER / "Resources" / name)

    def onReload(self) -> None:
        self.reloaded = True


def load_ui(path: str) -> SimpleNamespace:
    """One plain object per widget of the .ui file, so that a misspelt name fails as it does in Slicer."""
    top = ElementTree.parse(path).getroot().find("widget")
    assert top is not None
    children = {widget.attrib["name"]: SimpleNamespace(text="", visible=True) for widget in top.iter("widget")}
    return SimpleNamespace(kind=top.attrib["class"], children=children, scene=None)


def stand_ins() -> dict[str, ModuleType]:
    slicer = ModuleType("slicer")
    loadable = ModuleType("slicer.ScriptedLoadableModule")
    loadable.ScriptedLoadableModule = StandInModule
    loadable.ScriptedLoadableModuleWidget = StandInWidget
    loadable.ScriptedLoadableModuleLogic = object
    loadable.ScriptedLoadableModuleTest = unittest.TestCase
    i18n = ModuleType("slicer.i18n")
    i18n.tr = lambda text: text
    i18n.translate = lambda context, text: text
    slicer.mrmlScene = object()

    def child_widget_variables(widget: SimpleNamespace) -> SimpleNamespace:
        return SimpleNamespace(**widget.children)

    def load(path: str) -> SimpleNamespace:
        widget = load_ui(path)
        widget.setMRMLScene = lambda scene: setattr(widget, "scene", scene)
        return widget

    slicer.util = SimpleNamespace(loadUI=load, childWidgetVariables=child_widget_variables)
    names = {"slicer": slicer, "slicer.i18n": i18n, "slicer.ScriptedLoadableModule": loadable}
    return names | {name: ModuleType(name) for name in ("qt", "ctk", "vtk")}


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module file, loaded as Slicer loads it."""
    for name, stand_in in stand_ins().items():
        monkeypatch.setitem(sys.modules, name, stand_in)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != LOGIC] + [LOGIC])
    return load_module()


def load_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("MultiContrastSR", MODULE_FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_title_and_category(module: ModuleType) -> None:
    parent = SimpleNamespace()
    module.MultiContrastSR(parent)
    assert parent.title == "Multi-Contrast Super-Resolution"
    assert parent.categories == ["Image Synthesis"]
    assert parent.dependencies == []
    assert parent.contributors
    assert "https://" in parent.helpText
    assert "{" not in parent.helpText
    assert "Ljubljana" in parent.acknowledgementText


def test_classes_that_slicer_looks_for(module: ModuleType) -> None:
    for suffix, base in (
        ("", StandInModule),
        ("Widget", StandInWidget),
        ("Logic", object),
        ("Test", unittest.TestCase),
    ):
        assert issubclass(getattr(module, f"MultiContrastSR{suffix}"), base)


def test_engine_is_found_first_and_once(module: ModuleType) -> None:
    load_module()
    assert sys.path[0] == LOGIC
    assert sys.path.count(LOGIC) == 1
    assert module.mcsr is mcsr


def test_panel_tells_the_version_and_the_command(module: ModuleType) -> None:
    widget = module.MultiContrastSRWidget()
    widget.setup()
    assert mcsr.__version__ in widget.ui.versionLabel.text
    assert "mcsr enhance" in widget.ui.commandLabel.text
    assert widget.ui.warningLabel.visible is False


def test_another_copy_of_the_engine_is_reported(module: ModuleType, tmp_path: Path) -> None:
    module.mcsr = SimpleNamespace(__file__=str(tmp_path / "mcsr" / "__init__.py"), __version__="9")
    widget = module.MultiContrastSRWidget()
    widget.setup()
    assert str(tmp_path) in widget.ui.warningLabel.text
    assert widget.ui.warningLabel.visible is True


def test_reload_drops_our_packages_only(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = {"mcsr": mcsr, "mcsr.errors": mcsr, "mcsr_slicer": mcsr, "mcsrother": mcsr}
    monkeypatch.setattr(sys, "modules", {**sys.modules, **loaded})
    widget = module.MultiContrastSRWidget()
    widget.onReload()
    assert widget.reloaded
    assert "mcsrother" in sys.modules
    assert not [name for name in sys.modules if name.partition(".")[0] in ("mcsr", "mcsr_slicer")]


def test_ui_file_follows_the_convention() -> None:
    root = ElementTree.parse(MODULE_FOLDER / "Resources" / "UI" / "MultiContrastSR.ui").getroot()
    assert root.find("widget").attrib["class"] == "qMRMLWidget"
    assert [widget.findtext("class") for widget in root.iter("customwidget")] == ["qMRMLWidget"]


def test_loading_the_module_loads_nothing_heavy() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_module\n"
        "sys.modules.update(test_module.stand_ins())\n"
        "test_module.load_module()\n"
        "print(*sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": LOGIC, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mcsr" in done.stdout.split()
    assert not {"torch", "h5py", "SimpleITK", "safetensors"} & set(done.stdout.split())
