"""The panel: what it shows, allows and says, and what of it the scene keeps. The worker only pretends here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("slicer_core", reason="slicer-core is not installed or lacks libGL", exc_type=ImportError)
pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not installed or lacks libEGL", exc_type=ImportError)

import slicer
from mcsr.volume import Volume
from mcsr.weights import shipped_models
from panel_fixtures import PICTURES, add_volume, choose

Phantom = tuple[Volume, Volume, Volume]


def parameters(opened: SimpleNamespace):
    return opened.widget._parameterNode


def test_first_sight(opened: SimpleNamespace) -> None:
    ui = opened.ui
    assert not ui.applyButton.enabled
    assert ui.statusLabel.text == ui.applyButton.toolTip == "Choose the target: the scan to enhance."
    assert (ui.modelSelector.currentText, ui.scaleSelector.currentText) == ("dcamsr-s", "x4")
    assert "fast on a laptop" in ui.modelHint.text
    figures = next(entry["figures"] for entry in shipped_models() if entry["id"] == "dcamsr-s-x4").values()
    gains = [of_pair["psnr"] - of_pair["psnr_sinc"] for of_pair in figures]
    assert f"{min(gains):.1f} to {max(gains):.1f} dB above interpolation" in ui.figuresHint.text
    assert ui.warningLabel.text == ""
    assert "Research use only" in ui.versionLabel.text
    assert ui.advancedSection.collapsed
    assert ui.modelsSection.collapsed


def test_only_models_with_weights_can_be_chosen(opened: SimpleNamespace) -> None:
    box = opened.ui.modelSelector
    installed = sorted({entry["architecture"] for entry in shipped_models()})
    assert {"cd-dpe-s", "dcamsr-s"} <= set(installed)
    assert [box.itemText(n) for n in range(box.count)] == installed
    listed = [opened.ui.modelsList.item(n).text() for n in range(opened.ui.modelsList.count)]
    assert any(text.startswith("cd-dpe: no weights") for text in listed)
    assert "dcamsr-s  x2  dcamsr-s-x2 (comes with the extension)" in listed


def test_enhance_says_what_is_missing(opened: SimpleNamespace, phantom: Phantom) -> None:
    target, reference = add_volume(phantom[0]), add_volume(phantom[1])
    ui, choices = opened.ui, parameters(opened)
    assert ui.statusLabel.text.startswith("Choose the target")
    ui.targetSelector.setCurrentNode(target)
    assert choices.target is target
    assert ui.applyButton.enabled
    assert ui.statusLabel.text.startswith("Expected time: about ")
    assert "guess" in ui.statusLabel.text
    assert ui.inputsHint.text == "Voxels of 4.8 x 4.8 x 4 mm; the result has 1.2 x 1.2 x 4 mm."
    ui.referenceSelector.setCurrentNode(target)
    assert not ui.applyButton.enabled
    assert ui.statusLabel.text == "Target and reference are the same volume. Choose another one."
    ui.referenceSelector.setCurrentNode(reference)
    ui.outputSelector.setCurrentNode(reference)
    assert "overwrite an input" in ui.statusLabel.text
    ui.outputSelector.setCurrentNode(None)
    ui.registrationSelector.currentIndex = 2
    assert ui.statusLabel.text == "Choose the transform under Advanced, or another registration."
    ui.transformSelector.setCurrentNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "move"))
    assert ui.applyButton.enabled
    ui.groundTruthSelector.setCurrentNode(target)
    assert ui.statusLabel.text == "Target and ground truth are the same volume. Choose another one."
    slicer.mrmlScene.RemoveNode(target)
    assert ui.statusLabel.text.startswith("Choose the target")


def test_model_brings_its_scales_and_maps(opened: SimpleNamespace) -> None:
    ui, choices = opened.ui, parameters(opened)
    ui.scaleSelector.currentIndex = 0
    assert choices.scale == 2
    choose(ui.modelSelector, "cd-dpe-s")
    assert (choices.model, choices.scale) == ("cd-dpe-s", 2)
    assert [ui.scaleSelector.itemText(n) for n in range(ui.scaleSelector.count)] == ["x2", "x4"]
    assert ui.mapsList.item(0).text() == "Common and unique parts: Unique part of the target"
    assert ui.mapsList.item(0).toolTip()
    ui.allMapsButton.click()
    assert choices.maps == "all"
    ui.noMapsButton.click()
    assert choices.maps == "none"
    ui.mapsList.item(1).setCheckState(opened.host.qt.Qt.Checked)
    ui.mapsList.item(0).setCheckState(opened.host.qt.Qt.Checked)
    assert choices.maps == ",".join(entry.name for entry in opened.widget.panel.choices.models["cd-dpe-s"].maps[:2])


def test_simulation_explains_itself(opened: SimpleNamespace, phantom: Phantom) -> None:
    opened.ui.targetSelector.setCurrentNode(add_volume(phantom[2]))
    opened.ui.simulateBox.checked = True
    assert opened.ui.inputsHint.text == (
        "Voxels of 1.2 x 1.2 x 4 mm, made 4.8 x 4.8 x 4 mm first; the result has 1.2 x 1.2 x 4 mm again."
    )
    assert not opened.ui.groundTruthSelector.enabled


def test_choices_live_in_the_scene(opened: SimpleNamespace, phantom: Phantom, tmp_path: Path) -> None:
    ui, file = opened.ui, str(tmp_path / "scene.mrb")
    ui.targetSelector.setCurrentNode(add_volume(phantom[0]))
    ui.simulateBox.checked = True
    ui.scaleSelector.currentIndex = 0
    ui.planeSelector.currentIndex = 1
    ui.seedBox.value = 7
    ui.folderSelector.currentPath = str(tmp_path)
    ui.opacitySlider.value = 35.0
    ui.noMapsButton.click()
    ui.allMapsButton.click()
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        node.CreateDefaultStorageNode()
    assert slicer.mrmlScene.WriteToMRB(file)
    opened.host.scene.clear()
    assert ui.statusLabel.text.startswith("Choose the target")
    assert (ui.simulateBox.checked, ui.scaleSelector.currentText, ui.seedBox.value) == (False, "x4", 0)
    assert slicer.mrmlScene.ReadFromMRB(file, True)
    assert ui.targetSelector.currentNode().GetName() == phantom[0].name
    assert (ui.simulateBox.checked, ui.scaleSelector.currentText, ui.seedBox.value) == (True, "x2", 7)
    assert ui.planeSelector.currentText == "Axial"
    assert ui.folderSelector.currentPath == str(tmp_path)
    assert ui.opacitySlider.value == 35.0
    assert ui.mapsList.item(0).checkState() == opened.host.qt.Qt.Checked


def test_parameter_node_refuses_what_the_engine_would(opened: SimpleNamespace) -> None:
    choices = parameters(opened)
    for name, value in (("scale", 5), ("seed", -1), ("mapOpacity", 101.0)):
        with pytest.raises(ValueError, match=str(value)):
            setattr(choices, name, value)


def test_left_and_entered_again(opened: SimpleNamespace, phantom: Phantom) -> None:
    target = add_volume(phantom[0])
    opened.panel.enter()
    opened.panel.exit()
    opened.ui.targetSelector.setCurrentNode(target)
    opened.panel.enter()
    assert opened.ui.targetSelector.currentNode() is target
    assert parameters(opened).target is target


def test_unloaded_panel_is_silent(host: object, phantom: Phantom) -> None:
    panel = host.open()
    panel.close()
    add_volume(phantom[0])
    host.scene.clear()
    assert host.problems() == []


def test_every_control_can_be_reached_and_explains_itself(opened: SimpleNamespace) -> None:
    qt = opened.host.qt
    kinds = (qt.QAbstractButton, qt.QComboBox, qt.QAbstractSpinBox, qt.QAbstractSlider, qt.QListWidget)
    own = {name: w for name, w in vars(opened.ui).items() if not name.startswith("qt_")}
    controls = [
        w for w in own.values() if isinstance(w, kinds) or type(w).__name__ in ("qMRMLNodeComboBox", "ctkPathLineEdit")
    ]
    assert len(controls) > 25
    assert [w.name for w in controls if not w.toolTip] == []
    # Fields of a form have a label with a shortcut, or none to have.
    labels = [w for w in own.values() if type(w) is qt.QLabel and w.text.endswith(":")]
    assert [w.name for w in labels if w.buddy() is None] == []
    letters = [w.text[w.text.index("&") + 1].lower() for w in own.values() if "&" in getattr(w, "text", "")]
    assert len(letters) == len(set(letters))
    assert not set(letters) & set("fevh"), "these open menus of Slicer's main window"


def test_pictures_of_the_panel(opened: SimpleNamespace, phantom: Phantom) -> None:
    opened.panel.picture(PICTURES / "panel-empty.png")
    for selector, volume in zip(("targetSelector", "referenceSelector", "groundTruthSelector"), phantom, strict=True):
        getattr(opened.ui, selector).setCurrentNode(add_volume(volume))
    for section in ("advancedSection", "modelsSection", "logSection"):
        getattr(opened.ui, section).collapsed = False
    opened.ui.registrationSelector.currentIndex = 2
    opened.panel.picture(PICTURES / "panel-unfolded.png")
    assert (PICTURES / "panel-unfolded.png").stat().st_size > 20_000
