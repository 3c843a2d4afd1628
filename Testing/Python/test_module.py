"""MultiContrastSR.py on the host: what it declares, that loading it costs nothing, and its logic without a panel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

pytest.importorskip("slicer_core", reason="slicer-core is not installed or lacks libGL", exc_type=ImportError)
pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not installed or lacks libEGL", exc_type=ImportError)

import mcsr
import slicer
from mcsr.networks import create_network, network_class, network_names, network_summary
from module_host import MODULE_FILE, ModuleHost

MODULE_FOLDER = MODULE_FILE.parent
LOGIC = str(MODULE_FOLDER / "Logic")
ROOT = MODULE_FOLDER.parent
STAND_INS = {"qMRMLWidget", "ctkCollapsibleButton", "ctkPathLineEdit", "ctkSliderWidget", "qMRMLNodeComboBox"}


@pytest.fixture
def module(host: ModuleHost, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module file, loaded as Slicer loads it."""
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != LOGIC] + [LOGIC])
    return host.load()


def test_title_and_category(module: ModuleType) -> None:
    parent = SimpleNamespace(path=str(MODULE_FILE))
    module.MultiContrastSR(parent)
    assert parent.title == "Multi-Contrast Super-Resolution"
    assert parent.categories == ["Image Synthesis"]
    assert parent.dependencies == []
    assert parent.contributors
    assert "https://" in parent.helpText
    assert "{" not in parent.helpText
    assert "Ljubljana" in parent.acknowledgementText


def test_classes_that_slicer_looks_for(module: ModuleType) -> None:
    bases = slicer.ScriptedLoadableModule
    for suffix in ("", "Widget", "Logic", "Test"):
        base = getattr(bases, f"ScriptedLoadableModule{suffix}")
        assert issubclass(getattr(module, f"MultiContrastSR{suffix}"), base)
    assert issubclass(module.MultiContrastSRTest, unittest.TestCase)


def test_engine_is_found_first_and_once(module: ModuleType, host: ModuleHost) -> None:
    host.load()
    assert sys.path[0] == LOGIC
    assert sys.path.count(LOGIC) == 1
    assert module.mcsr is mcsr


def test_another_copy_of_the_engine_is_reported(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere = SimpleNamespace(__file__=str(tmp_path / "mcsr" / "__init__.py"), __version__="9")
    assert module.MultiContrastSRLogic().engineWarning() == ""
    monkeypatch.setattr(module, "mcsr", elsewhere)
    assert str(tmp_path) in module.MultiContrastSRLogic().engineWarning()


def test_sample_data_is_offered_after_the_start(module: ModuleType) -> None:
    module.MultiContrastSR(SimpleNamespace(path=str(MODULE_FILE)))
    assert slicer.modules.sampleDataSources == {}
    slicer.app.completeStartup()
    (sample,) = slicer.modules.sampleDataSources["MultiContrastSR"]
    assert Path(sample.thumbnailFileName).read_bytes()[:4] == b"\x89PNG"
    assert callable(sample.customDownloader)


def test_reload_drops_our_packages_only(module: ModuleType, host: ModuleHost, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = {"mcsr": mcsr, "mcsr.errors": mcsr, "mcsr_slicer": mcsr, "mcsrother": mcsr}
    panel = host.open()
    monkeypatch.setattr(sys, "modules", {**sys.modules, **loaded})
    panel.widget.onReload()
    assert slicer.app.reloaded == ["MultiContrastSR"]
    assert "mcsrother" in sys.modules
    assert not [name for name in sys.modules if name.partition(".")[0] in ("mcsr", "mcsr_slicer")]
    panel.close()


def test_ui_file_follows_the_convention() -> None:
    root = ElementTree.parse(MODULE_FOLDER / "Resources" / "UI" / "MultiContrastSR.ui").getroot()
    assert root.find("widget").attrib["class"] == "qMRMLWidget"
    classes = {widget.attrib["class"] for widget in root.iter("widget") if not widget.attrib["class"].startswith("Q")}
    assert {widget.findtext("class") for widget in root.iter("customwidget")} == classes == STAND_INS
    selectors = {w.attrib["name"] for w in root.iter("widget") if w.attrib["class"] == "qMRMLNodeComboBox"}
    assert {connection.findtext("receiver") for connection in root.iter("connection")} == selectors
    names = [widget.attrib["name"] for widget in root.iter("widget")]
    stops = [stop.text for stop in root.iter("tabstop")]
    assert len(names) == len(set(names))
    assert set(stops) <= set(names)
    assert set(stops) >= selectors


def test_networks_are_those_of_the_engine() -> None:
    """Written by tools/make_resources.py; cost and weights are tested elsewhere."""
    file = MODULE_FOLDER / "Resources" / "Models" / "MultiContrastSR_networks.json"
    written = json.loads(file.read_text(encoding="utf-8"))["networks"]
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        from make_resources import map_entries
    finally:
        sys.path.pop(0)
    names = [name for name in network_names() if network_class(name).uses_reference]
    assert list(written) == names
    for name in names:
        assert written[name]["summary"] == network_summary(name)
        assert written[name]["maps"] == map_entries(create_network(name)), f"{name}: run tools/make_resources.py"


def test_loading_the_module_loads_nothing_heavy() -> None:
    """The module, its panel and a parameter node; installing is for Enhance."""
    code = (
        "from module_host import module_host\n"
        "host = module_host()\n"
        "panel = host.open()\n"
        "import sys\n"
        "print(*sys.modules)\n"
        "assert not host.problems(), host.problems()\n"
        "panel.close()\n"
    )
    folders = os.pathsep.join([LOGIC, str(ROOT / "Testing" / "Host")])
    environment = os.environ | {"PYTHONPATH": folders, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mcsr_slicer.panel" in done.stdout.split()
    assert not {"torch", "h5py", "SimpleITK", "safetensors"} & set(done.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize("hasViews", [True, False])
def test_self_test_passes(module: ModuleType, host: ModuleHost, hasViews: bool) -> None:  # noqa: N803
    """As `ctest` runs it in Slicer, with a main window and without."""
    if not hasViews:
        host.withoutMainWindow()
    panel = host.open()
    module.MultiContrastSRTest().runTest()
    panel.close()
