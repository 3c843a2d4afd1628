"""What the panel says in the rarer cases: every sentence once, each where its cause is made."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("slicer_core", reason="slicer-core is not installed or lacks libGL", exc_type=ImportError)
pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not installed or lacks libEGL", exc_type=ImportError)

import slicer
from mcsr.volume import Volume
from mcsr_slicer.environment import EnvironmentNotReady, ensureEnvironment, freeMemory
from mcsr_slicer.estimate import duration, estimate, remember, work
from mcsr_slicer.node_tags import RESULT, TARGET, setTags
from mcsr_slicer.volumes import worldGrid
from panel_fixtures import Installer, add_volume

Phantom = tuple[Volume, Volume, Volume]


@pytest.fixture
def shown(opened: SimpleNamespace, phantom: Phantom) -> SimpleNamespace:
    """A result is shown that cd-dpe-s made, as when its scene was loaded."""
    opened.target = add_volume(phantom[0])
    opened.result = add_volume(phantom[2])
    setTags(opened.result, {"Role": "sr", "ModelId": "cd-dpe-s", "Parameters": json.dumps({"model": "cd-dpe-s"})})
    opened.result.SetNodeReferenceID(TARGET, opened.target.GetID())
    opened.widget._parameterNode.model = "cd-dpe-s"
    opened.widget._parameterNode.result = opened.result
    opened.ui.compareButton.click()
    return opened


def test_empty_target(opened: SimpleNamespace) -> None:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "hollow")
    opened.ui.targetSelector.setCurrentNode(node)
    assert opened.ui.statusLabel.text == "hollow holds no image. Choose another volume."


def test_model_without_weights(opened: SimpleNamespace, phantom: Phantom) -> None:
    """As a scene names it that was saved where its weights were installed."""
    opened.ui.targetSelector.setCurrentNode(add_volume(phantom[0]))
    opened.widget._parameterNode.weights = "elsewhere"
    assert opened.ui.statusLabel.text.startswith("There are no weights for this model and scale.")
    assert not opened.ui.applyButton.enabled


def test_transform_without_reference(opened: SimpleNamespace, phantom: Phantom) -> None:
    opened.ui.targetSelector.setCurrentNode(add_volume(phantom[0]))
    opened.ui.registrationSelector.currentIndex = 2
    opened.ui.transformSelector.setCurrentNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode"))
    assert opened.ui.statusLabel.text == "A transform needs a reference. Choose one, or another registration."


def test_maps_need_a_result_a_choice_and_the_target(shown: SimpleNamespace) -> None:
    ui, choices = shown.ui, shown.widget._parameterNode
    assert ui.mapsButton.toolTip == "Choose maps or trust maps under Advanced first."
    ui.allMapsButton.click()
    assert ui.mapsButton.enabled
    slicer.mrmlScene.RemoveNode(shown.target)
    ui.seedBox.value = 1
    assert ui.mapsButton.toolTip.startswith("The target or the reference of this result has left the scene")
    assert not ui.mapsButton.enabled
    choices.result = None
    assert ui.mapsButton.toolTip == "There is no result yet."
    assert not ui.exportButton.enabled


def test_maps_are_asked_for_as_the_result_was_made(shown: SimpleNamespace) -> None:
    """Not as the panel stands now: another plane, seed and registration were chosen since."""
    made = {"model": "cd-dpe-s", "scale": 4, "plane": "axial", "seed": 5, "registration": "rigid", "maps": "none"}
    setTags(shown.result, {"Parameters": json.dumps(made | {"weights": None})})
    shown.ui.seedBox.value = 9
    shown.ui.allMapsButton.click()
    shown.ui.mapsButton.click()
    request = json.loads((shown.worker.jobFolder / "request.json").read_text())
    assert (request["kind"], request["point_ras"]) == ("maps", None)
    assert request["settings"] == made | {"maps": "all", "registration": "none", "trust": False}
    shown.widget.logic.runner.cancel()
    shown.worker.exit()


def test_where_detail_came_from_needs_displacements(shown: SimpleNamespace) -> None:
    setTags(shown.result, {"PointMaps": "none"})
    shown.ui.probeBox.checked = True
    assert shown.ui.probeHint.text.startswith("Compute the displacement maps of this result first")
    shown.widget.panel.views._onClick(worldGrid(shown.result).centre_ras)
    assert "do not tell where its detail came from" in shown.ui.probeHint.text
    shown.ui.probeBox.checked = False
    assert shown.ui.probeHint.text == ""


def test_network_is_asked_of_a_point(shown: SimpleNamespace) -> None:
    """Once at a time; what was asked in vain is asked again by another click."""
    ras = tuple(float(mm) for mm in worldGrid(shown.result).centre_ras)
    shown.ui.probeBox.checked = True
    shown.widget.panel.views._onClick(ras)
    assert shown.ui.probeHint.text == "Asking the network..."
    request = json.loads((shown.worker.jobFolder / "request.json").read_text())
    assert (request["point_ras"], request["settings"]["maps"]) == (list(ras), "all")
    shown.widget.panel.views._onClick(ras)
    assert shown.ui.probeHint.text.startswith("Wait for the end of what is running")
    shown.widget.logic.runner.cancel()
    assert shown.ui.probeHint.text == "Click in the view of the result."
    shown.worker.exit()


def test_views_without_maps(shown: SimpleNamespace) -> None:
    assert shown.ui.mapHint.text.startswith("This result has no maps.")
    assert not shown.ui.nextMapButton.enabled
    shown.host.scene.clear()
    assert shown.ui.mapHint.text == "There is no result yet."


def test_warnings_of_the_worker_reach_the_panel(shown: SimpleNamespace, phantom: Phantom) -> None:
    """And the scores, where there is a truth."""
    shown.ui.targetSelector.setCurrentNode(shown.target)
    shown.ui.applyButton.click()
    scores = {"result": {"psnr": 31.26, "ssim": 0.9}, "interpolated": {"psnr": None, "ssim": 1.0}}
    part = SimpleNamespace(name="scores", report={"scores": scores}, warnings=["The scans barely overlap."])
    shown.widget.panel.onNodes(part, [])
    shown.widget.panel.onFinished()
    text = shown.ui.statusLabel.text
    lines = ["Done: . Result: 31.3 dB PSNR, 0.900 SSIM.", "The scans barely overlap.", "Research use only."]
    assert lines == text.splitlines()[:3]
    assert "Interpolated" not in text
    shown.worker.exit()


def test_models_folder_that_cannot_be_made(opened: SimpleNamespace, models_folder: Path) -> None:
    models_folder.write_text("a file")
    opened.ui.openModelsButton.click()
    assert opened.ui.modelsStatus.text == f"The folder {models_folder} cannot be made (File exists)."
    assert opened.dialogs.opened == []


def test_weights_check_that_crashes(opened: SimpleNamespace) -> None:
    opened.dialogs.file = "some.safetensors"
    opened.ui.addModelButton.click()
    opened.worker.line("Segmentation fault")
    opened.worker.exit(-11)
    assert opened.ui.modelsStatus.text == "The file could not be checked; see the log."
    assert "Segmentation fault" in opened.ui.logText.toPlainText()


def hidden_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcsr_slicer.environment.torchVersion", lambda: None)


def test_extension_that_the_server_has_not(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden_torch(monkeypatch)
    installer = Installer()
    installer.hasExtension = False
    monkeypatch.setattr(installer, "installTorchExtension", lambda: False)
    with pytest.raises(EnvironmentNotReady, match=r"could not be installed\. Install it in the Extensions Manager"):
        ensureEnvironment(installer, lambda question: True)


def test_torch_that_the_extension_did_not_install(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden_torch(monkeypatch)
    with pytest.raises(EnvironmentNotReady, match=r"PyTorch was not installed\. See the log"):
        ensureEnvironment(Installer(), lambda question: True)


def test_free_memory_of_gpus() -> None:
    def answer(text: str) -> Any:
        return lambda *_, **__: SimpleNamespace(stdout=text)

    assert freeMemory(answer("RTX A4000, 15360, 16384\n")) == "RTX A4000: 15.0 of 16.0 GB free"
    assert freeMemory(answer("")) == ""
    assert freeMemory(answer("No devices were found\n")) == ""

    def no_driver(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError

    def hangs(*_: Any, **__: Any) -> Any:
        raise subprocess.TimeoutExpired("nvidia-smi", 3)

    assert freeMemory(no_driver) == freeMemory(hangs) == ""


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (8.6, "9 s"), (43, "45 s"), (91, "2 min"), (5000, "83 min"), (9000, "2.5 h")]
)
def test_durations_are_as_exact_as_they_can_be(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_estimate_learns_from_a_run() -> None:
    kept: dict[str, Any] = {}
    settings = SimpleNamespace(value=kept.get, setValue=kept.__setitem__)
    assert not estimate(settings, "dcamsr-s", "cpu", 100.0).isMeasured
    remember(settings, "dcamsr-s", "cpu", 100.0, {"Enhancing": 20.0, "Registering": 7.0, "Drawing maps": 50.0})
    found = estimate(settings, "dcamsr-s", "cpu", 200.0)
    assert (found.isMeasured, found.seconds) == (True, pytest.approx(47.0))
    assert not estimate(settings, "dcamsr-s", "cuda", 200.0).isMeasured


def test_work_grows_with_the_power_that_the_network_has() -> None:
    assert work({100: 2.0, 400: 8.0}, 800, 3) == pytest.approx(48.0)
    assert work({100: 2.0, 400: 32.0}, 200, 1) == pytest.approx(8.0)
    assert work({100: 2.0}, 50, 1) == pytest.approx(1.0)


def test_maps_belong_to_their_result(shown: SimpleNamespace, phantom: Phantom) -> None:
    """A map that was loaded with the scene is offered at once."""
    node = add_volume(phantom[2])
    setTags(node, {"Role": "map", "Map": "gates", "Family": "Experts", "Title": "Gates", "Meaning": "Who decides."})
    node.SetNodeReferenceID(RESULT, shown.result.GetID())
    shown.ui.compareButton.click()
    assert (shown.ui.familySelector.currentText, shown.ui.mapSelector.currentText) == ("Experts", "Gates")
    assert shown.ui.mapHint.text == "Who decides."
